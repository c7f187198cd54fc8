"""Says which rule keeps or deletes each checkpoint of a directory. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from distckpt.core import tf_retention
from distckpt.core.manifest import Retention
from distckpt.core.tf_retention import Kept
from distckpt.directory.catalog import View
from distckpt.errors import ConfigurationError
from distckpt.keep import Checkpoint, parse

if TYPE_CHECKING:
    from distckpt.inspection.inventory import Item

DELETED = "deleted by the next save"


def explain(
    items: Sequence[Item],
    rules: Retention | None,
    view: View,
    verified: Collection[str],
    now: float,
) -> dict[str, str]:
    """Returns why each checkpoint is kept, or that it is deleted: name → reason.

    Args:
      items: All checkpoints of a directory.
      rules: The rules of retention; None if they are unknown.
      view: Which of the checkpoints retention manages.
      verified: The checkpoints of which every byte was verified.
      now: The time, in seconds since 1970.

    Returns:
      A reason for each; `DELETED` if nothing keeps it; "" if that is unknown.
    """
    found: dict[str, list[str]] = {item.name: _held(item) for item in items}
    if rules is not None:
        _add_newest(found, rules, view.active)
        for name, why in _by_policy(rules.keep, _facts(items, view.active, verified), now).items():
            found[name].append(why)
        for kept in _preserved(found, rules, view):
            found[kept.name].append(f"keep_checkpoint_every_n_hours={rules.every_hours:g}")
    return {item.name: _why(item, found[item.name], rules) for item in items}


def of_deletion(rules: Retention) -> str:
    """Returns which rule deletes a checkpoint that nothing keeps."""
    most = _most(rules)
    newest = "not the newest" if most == 1 else f"not one of the {most} newest"
    return f"{newest}, and no policy keeps it" if rules.keep else newest


def describe(rules: Retention) -> str:
    """Returns the rules of retention in words."""
    parts = [f"max_to_keep={rules.max_to_keep}"]
    if rules.every_hours:
        parts.append(f"keep_checkpoint_every_n_hours={rules.every_hours:g}")
    if rules.keep:
        parts.append(f"keep={rules.keep}")
    return ", ".join(parts)


def _most(rules: Retention) -> int | None:
    """Returns how many of the newest are kept; None for all."""
    return 1 if rules.max_to_keep is None and rules.keep else rules.max_to_keep


def _add_newest(found: dict[str, list[str]], rules: Retention, active: Sequence[Kept]) -> None:
    most = _most(rules)
    why = "the newest" if most == 1 else f"one of the {most} newest" if most else "all are kept"
    for kept in active[-most:] if most else active:
        if kept.name in found:
            found[kept.name].append(why)


def _facts(
    items: Sequence[Item], active: Iterable[Kept], verified: Collection[str]
) -> list[Checkpoint]:
    """Returns what a policy may know about the managed checkpoints, oldest first."""
    by_name = {item.name: item for item in items}
    return [
        tf_retention.facts(kept, by_name[kept.name].manifest, verified=kept.name in verified)
        for kept in active
        if kept.name in by_name
    ]


def _by_policy(keep: str, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
    if not keep:
        return {}
    try:
        return parse(keep).reasons(checkpoints, now)
    except ConfigurationError:  # a user's own policy
        return {c.name: f"{keep} decides" for c in checkpoints}


def _preserved(found: dict[str, list[str]], rules: Retention, view: View) -> tuple[Kept, ...]:
    """Returns what ``keep_checkpoint_every_n_hours`` keeps of what nothing else keeps."""
    spared = {name for name, reasons in found.items() if reasons}
    swept = tf_retention.sweep(
        view.active, _most(rules), rules.every_hours, view.last_preserved, spared
    )
    return tuple(kept for kept in swept.preserved if kept.name in found)


def _held(item: Item) -> list[str]:
    reasons = []
    if item.pin is not None:
        reasons.append("pinned" + (f" ({item.pin.reason})" if item.pin.reason else ""))
    reasons += [f"being read on {lease.host} (pid {lease.pid})" for lease in item.leases]
    return reasons


def _why(item: Item, reasons: list[str], rules: Retention | None) -> str:
    if item.problem and not item.listed:
        return "not counted, and never deleted: it may be useful for a repair"
    if reasons:
        return "; ".join(reasons)
    if not item.listed:
        return "not managed: never deleted"
    return DELETED if rules is not None else ""
