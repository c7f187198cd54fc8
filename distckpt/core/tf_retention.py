"""Which checkpoints to keep: TensorFlow's rules, as functions of lists.

A rule takes a `Sweep`, the decisions so far, and returns a `Sweep` with its own decisions added;
rules are applied one after the other. `keep_newest` marks checkpoints for deletion; `spare_every`
takes some of them back. The design is that of Orbax's ``preservation_policy`` and of tenacity's
``stop`` conditions.

Source: ``CheckpointManager.__init__``, ``save`` and ``_sweep`` in
``tensorflow/python/checkpoint/checkpoint_management.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from distckpt.core.manifest import Head
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.keep import Checkpoint


class Kept(NamedTuple):
    """A managed checkpoint: its name, or path, and when it was saved (seconds since 1970)."""

    name: str
    timestamp: float


def facts(kept: Kept, manifest: Head | None, *, verified: bool) -> Checkpoint:
    """Returns what a policy may know about a checkpoint.

    Args:
      kept: The checkpoint.
      manifest: Its manifest in force, or the head of it, if it has one.
      verified: Whether a note says that all of its bytes were found intact.
    """
    return Checkpoint(
        name=kept.name,
        time=kept.timestamp,
        step=manifest.step if manifest else None,
        metrics=manifest.metrics if manifest else {},
        verified=verified,
    )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The decisions on the managed checkpoints.

    Attributes:
      active: Checkpoints that stay managed, oldest first.
      victims: Checkpoints to delete, oldest first.
      preserved: Checkpoints that are never deleted and no longer listed, oldest first.
      last_preserved: Timestamp of the newest checkpoint ever preserved, in seconds since 1970.
    """

    active: tuple[Kept, ...]
    victims: tuple[Kept, ...]
    preserved: tuple[Kept, ...]
    last_preserved: float


Rule = Callable[[Sweep], Sweep]


def sweep(
    active: Sequence[Kept],
    max_to_keep: int | None,
    keep_every_hours: float | None,
    last_preserved: float,
    spared: Collection[str] = (),
) -> Sweep:
    """Decides as `tf.train.CheckpointManager` does after a save. Only the chief acts on it.

    Args:
      active: The managed checkpoints, oldest first, the one just saved among them.
      max_to_keep: How many are kept; None for all.
      keep_every_hours: A checkpoint that would be deleted is preserved if it was saved at least
        this many hours after the last preserved one; None preserves none.
      last_preserved: Timestamp of the last preserved checkpoint, in seconds since 1970.
      spared: Names of checkpoints that stay managed in any case.
    """
    decisions = Sweep(tuple(active), (), (), last_preserved)
    rules = (keep_newest(max_to_keep), spare(spared), spare_every(keep_every_hours))
    for rule in rules:
        decisions = rule(decisions)
    return decisions


def keep_newest(count: int | None) -> Rule:
    """Returns the rule that deletes all but the `count` newest; None or 0 keeps all."""

    def rule(so_far: Sweep) -> Sweep:
        surplus = max(0, len(so_far.active) - count) if count else 0
        return dataclasses.replace(
            so_far,
            active=so_far.active[surplus:],
            victims=so_far.victims + so_far.active[:surplus],
        )

    return rule


def spare(names: Collection[str]) -> Rule:
    """Returns the rule that takes the victims among `names` back; they stay managed."""

    def rule(so_far: Sweep) -> Sweep:
        if not names:
            return so_far
        back = tuple(kept for kept in so_far.victims if kept.name in names)
        victims = tuple(kept for kept in so_far.victims if kept.name not in names)
        # Victims are older than kept checkpoints, so the order is kept.
        return dataclasses.replace(so_far, active=back + so_far.active, victims=victims)

    return rule


def spare_every(hours: float | None) -> Rule:
    """Returns the rule that preserves a victim every `hours` hours; None or 0 preserves none."""

    def rule(so_far: Sweep) -> Sweep:
        victims, preserved, last = [], list(so_far.preserved), so_far.last_preserved
        for checkpoint in so_far.victims:
            if hours and checkpoint.timestamp - hours * 3600.0 >= last:
                preserved.append(checkpoint)
                last = checkpoint.timestamp
            else:
                victims.append(checkpoint)
        return Sweep(so_far.active, tuple(victims), tuple(preserved), last)

    return rule


def record(active: Sequence[Kept], name: str, timestamp: float) -> tuple[Kept, ...]:
    """Returns the managed checkpoints after `name` was saved: `name` is the newest."""
    return (*(kept for kept in active if kept.name != name), Kept(name, timestamp))


@dataclasses.dataclass(frozen=True)
class Recovered:
    """What a new manager takes over from a `checkpoint` file.

    Attributes:
      active: The managed checkpoints, oldest first.
      latest: The newest checkpoint, or None.
      last_preserved: Timestamp of the last preserved checkpoint, in seconds since 1970.
      clock_went_back: How many seconds the clock is behind the last preserved checkpoint, or None.
    """

    active: tuple[Kept, ...]
    latest: str | None
    last_preserved: float
    clock_went_back: float | None = None


def recover(state: CheckpointState | None, now: float) -> Recovered:
    """Returns what the constructor of `tf.train.CheckpointManager` takes over.

    Afterwards no timestamp is later than `now`, so a clock that was set back does not make old
    checkpoints look new. A checkpoint that is not newer than the last preserved one is no longer
    managed; nor is any checkpoint of a file without timestamps.

    Args:
      state: What the `checkpoint` file says; None without one.
      now: The time, in seconds since 1970.
    """
    if state is None:
        # A little earlier, so that a first save within the clock's resolution counts as later.
        return Recovered((), None, now - 1.0)
    last_preserved = state.last_preserved or 0.0
    clock_went_back = last_preserved - now if now < last_preserved else None
    last_preserved = min(last_preserved, now)
    timestamps = state.timestamps or (last_preserved,) * len(state.paths)
    active: dict[str, float] = {}
    # A path listed twice keeps its first place; surplus paths or times are dropped.
    for path, timestamp in zip(state.paths, timestamps, strict=False):
        if min(timestamp, now) > last_preserved:
            active[path] = min(timestamp, now)
    kept = tuple(Kept(path, timestamp) for path, timestamp in active.items())
    return Recovered(kept, state.latest, last_preserved, clock_went_back)
