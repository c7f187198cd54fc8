"""Plans a pruning: what the rules delete, what they keep, and why. Only reads."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from distckpt.cli import reports
from distckpt.errors import CheckpointDamagedError, ConfigurationError

if TYPE_CHECKING:
    from distckpt.core.manifest import Retention
    from distckpt.directory.managed_checkpoints import ManagedCheckpoints
    from distckpt.inspection.inventory import Inventory, Item
    from distckpt.storage.base import Storage


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be deleted, and why.

    Attributes:
      found: The directory.
      rules: The rules that were given, or those of the job.
      managed: The managed checkpoints, with these rules.
      victims: The names of the checkpoints to delete.
      why: Why each checkpoint is kept or deleted: name → reason.
    """

    found: Inventory
    rules: Retention
    managed: ManagedCheckpoints
    victims: frozenset[str]
    why: dict[str, str]

    @property
    def deleted(self) -> list[Item]:
        """The checkpoints to delete."""
        return [item for item in self.found.items if item.name in self.victims]

    @property
    def counted(self) -> list[Item]:
        """The checkpoints that retention manages and keeps."""
        return [i for i in self.found.items if i.listed and i.name not in self.victims]


def make(
    storage: Storage, path: str, found: Inventory, max_to_keep: int | None, keep: str | None
) -> Plan:
    """Plans what to delete by the rules of the command line, or those of the job; see `by`."""
    from distckpt.core.manifest import Retention

    rules = _rules(found, path, max_to_keep, keep) if found.items else Retention(None, None, "")
    return by(storage, path, found, rules)


def by(storage: Storage, path: str, found: Inventory, rules: Retention) -> Plan:
    """Plans what to delete, and checks that it is safe as far as sizes and indexes tell.

    Raises:
      CheckpointDamagedError: A checkpoint that the rules keep is damaged.
      ConfigurationError: The rules are not usable.
    """
    from distckpt.inspection import inventory

    _check_metrics(found, rules.keep)
    managed = _managed(storage, path, rules)
    victims = frozenset(kept.name for kept in managed.decide().victims)
    there = tuple(item for item in found.items if item.state != inventory.DELETED)
    found = dataclasses.replace(found, items=there)
    why = _reasons(storage, path, found, rules, managed)
    plan = Plan(found, rules, managed, victims, why)
    _check_rest(plan)
    return plan


def _reasons(
    storage: Storage, path: str, found: Inventory, rules: Retention, managed: ManagedCheckpoints
) -> dict[str, str]:
    from distckpt.directory.catalog import Catalog, View
    from distckpt.inspection import keep_reasons

    view = View(managed.active, managed.latest, managed.last_preserved)
    verified = Catalog.for_a_look(storage, path).verified()
    why = keep_reasons.explain(found.items, managed.rules, view, verified, time.time())
    deleted = keep_reasons.of_deletion(rules)
    return {name: deleted if w == keep_reasons.DELETED else w for name, w in why.items()}


def _check_rest(plan: Plan) -> None:
    """Refuses to delete good checkpoints while a damaged one counts as one that is kept."""
    damaged = reports.damaged(plan.counted)
    if plan.victims and damaged:
        raise CheckpointDamagedError(refusal(damaged[0].name, damaged[0].problem))


def refusal(name: str, problem: str) -> str:
    """Returns the error message for a damaged checkpoint that the rules keep."""
    return (
        f"{name} is damaged, but would count as a checkpoint that is kept: {problem} "
        f"Nothing was deleted. Move it away first: {name}.*"
    )


def _rules(found: Inventory, path: str, max_to_keep: int | None, keep: str | None) -> Retention:
    """Returns the rules of the command line, or else those of the job."""
    from distckpt.core.manifest import Retention

    if keep is None and max_to_keep is None:
        rules = _rules_of_job(found, path)
    else:
        if keep is not None and max_to_keep is None:
            of_job = _recorded(found)
            max_to_keep = of_job.max_to_keep if of_job else None
        rules = Retention(max_to_keep, None, keep or "")
    if not rules.keep and rules.max_to_keep is None:
        raise ConfigurationError(
            f"The job keeps all checkpoints in {path}. Give --max-to-keep or --keep."
        )
    return rules


def _check_metrics(found: Inventory, keep: str) -> None:
    from distckpt.keep import Checkpoint, check_metrics, parse

    if keep:
        manifests = [item.manifest for item in found.items if item.manifest and item.listed]
        checkpoints = [
            Checkpoint(name=m.name, time=m.committed_at, metrics=m.metrics) for m in manifests
        ]
        check_metrics(parse(keep), checkpoints)


def _managed(storage: Storage, path: str, rules: Retention) -> ManagedCheckpoints:
    """Returns the managed checkpoints, with the rules to apply to them."""
    from distckpt.directory.managed_checkpoints import ManagedCheckpoints
    from distckpt.keep import KeepPolicy, LastVerified, parse

    policy: KeepPolicy = LastVerified()
    if rules.keep:
        policy = parse(rules.keep) | policy
    return ManagedCheckpoints(
        storage, path, rules.max_to_keep, rules.every_hours, durable=True, keep=policy
    )


def _rules_of_job(found: Inventory, path: str) -> Retention:
    rules = _recorded(found)
    if rules is None:
        text = f"in {path} records what the job keeps. Give --max-to-keep or --keep."
        if reports.damaged(found.items):
            raise CheckpointDamagedError(f"No undamaged manifest {text}")
        raise ConfigurationError(f"No manifest {text}")
    return rules


def _recorded(found: Inventory) -> Retention | None:
    manifests = [item.manifest for item in found.items if item.manifest]
    newest = max(manifests, key=lambda m: m.order, default=None)
    return newest.retention if newest else None
