"""Compares the workers' copies of values that should be equal on all of them.

Each piece of the plan has an owner, the worker that writes it; the checksum in the owner's index is
that of the owner's copy. Every other worker computes the checksum of its own copy of the same
piece, and the chief compares. All workers know which pieces a save compares from the plan and the
number of the save.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from distckpt.core.protocol.messages import Report
from distckpt.core.protocol.write_plan import Piece, Plan

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SHOWN = 10  # differences that a message names


@dataclasses.dataclass(frozen=True)
class Check:
    """Which pieces one save compares; the same on all workers.

    Attributes:
      mode: "off"; "warn" to save even if something differs; "error" to save nothing then.
      every: With n, a save compares one of every n pieces, the next save others; n saves compare
        all.
      turn: The number of the save.
    """

    mode: str = "off"
    every: int = 1
    turn: int = 0


@dataclasses.dataclass(frozen=True)
class Divergence:
    """A piece of which the workers hold different copies.

    Attributes:
      piece: The piece.
      groups: The workers that agree with each other, by index; the largest group first.
    """

    piece: Piece
    groups: tuple[tuple[int, ...], ...]

    @property
    def deviant(self) -> tuple[int, ...]:
        """The workers outside the largest group; empty if two groups are the largest."""
        first, second = len(self.groups[0]), len(self.groups[1])
        return tuple(w for group in self.groups[1:] for w in group) if first > second else ()


def compared(plan: Plan, check: Check) -> tuple[tuple[int, Piece], ...]:
    """Returns the pieces that a save compares, with their owners, in one order on all workers."""
    if check.mode == "off" or plan.workers == 1:
        return ()
    return plan.mirrored[check.turn % check.every :: check.every]


def copies(plan: Plan, worker: int, check: Check) -> tuple[Piece, ...]:
    """Returns, in order, the other workers' pieces whose checksums `worker` must compute."""
    return tuple(piece for owner, piece in compared(plan, check) if owner != worker)


def unlike(plan: Plan, report: Report, check: Check) -> str | None:
    """Returns why a report's checksums cannot be compared, or None. They need not be equal."""
    expected = None if check.mode == "off" else len(copies(plan, report.worker, check))
    got = None if report.copies is None else len(report.copies)
    if got == expected:
        return None
    return (
        f"worker {report.worker} compares other replicas than the chief. "
        "Give all workers the same ManagerOptions (check_replicas, check_replicas_every)."
    )


def compare(plan: Plan, reports: Mapping[int, Report], check: Check) -> tuple[Divergence, ...]:
    """Returns the pieces that differ.

    Args:
      plan: The plan.
      reports: All reports, by worker; `unlike` has accepted them.
      check: Which pieces were compared.
    """
    written = {
        worker: {(p.key, p.spec): p.crc32c for p in report.pieces}
        for worker, report in reports.items()
    }
    others = {worker: iter(report.copies or ()) for worker, report in reports.items()}
    found = []
    for owner, piece in compared(plan, check):
        holders: dict[int, list[int]] = defaultdict(list)
        for worker in sorted(reports):
            mine = worker == owner
            crc = written[owner][piece.identity] if mine else next(others[worker])
            holders[crc].append(worker)
        if len(holders) > 1:
            groups = sorted(map(tuple, holders.values()), key=lambda group: (-len(group), group))
            found.append(Divergence(piece, tuple(groups)))
    return tuple(found)


def explain(found: Sequence[Divergence], among: int, what: str) -> str:
    """Returns which variables differ, on which workers.

    Args:
      found: The differences, at least one.
      among: How many pieces were compared.
      what: What was being saved: "ckpt-12 (step 1200)".
    """
    lines = [f"  {_name(d.piece)}: {_describe(d)}" for d in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN} more")
    return (
        f"Values that should be equal on all workers differ, in {what}; {len(found)} of "
        f"{among} compared:\n" + "\n".join(lines)
    )


def culprit(found: Sequence[Divergence]) -> int | None:
    """Returns the worker that alone deviates in every difference, or None."""
    deviant = {d.deviant for d in found}
    (only,) = deviant if len(deviant) == 1 else ((),)
    return only[0] if len(only) == 1 else None


def _name(piece: Piece) -> str:
    name = piece.entry.key.removesuffix(_SUFFIX)
    return name if piece.rows is None else f"{name}, rows {piece.rows[0]} to {piece.rows[1]}"


def _describe(found: Divergence) -> str:
    if found.deviant:
        verb = "differs" if len(found.deviant) == 1 else "differ"
        return f"{_workers(found.deviant)} {verb} from {_workers(found.groups[0])}"
    return f"{' and '.join(map(_workers, found.groups))} hold different values"


def _workers(indices: Sequence[int]) -> str:
    """Returns "worker 3", or "workers 0, 1, 2 and 60 more"."""
    if len(indices) == 1:
        return f"worker {indices[0]}"
    text = "workers " + ", ".join(map(str, indices[:_SHOWN]))
    return text if len(indices) <= _SHOWN else f"{text} and {len(indices) - _SHOWN} more"
