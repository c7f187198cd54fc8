"""Checks that the reports of the workers agree with the plan."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from distckpt.core.protocol.messages import Report
from distckpt.core.protocol.write_plan import Plan, digest

_ROW = operator.attrgetter("key", "spec", "dtype", "shape")


def unplanned(plan: Plan, report: Report) -> str | None:
    """Returns what differs between a report and the worker's share of the plan, or None.

    What the state's own savers wrote is in no plan; only the chief may report it.
    """
    if digest(map(_ROW, report.pieces)) == plan.digests[report.worker]:
        return None  # as it is almost always, and there may be a million pieces
    share = {p.identity: p for p in plan.shares[report.worker]}
    seen: set[tuple[str, str]] = set()
    for piece in report.pieces:
        identity = (piece.key, piece.spec)
        planned = share.get(identity)
        if planned is None:
            if report.worker == 0:
                continue
            return f"worker {report.worker} wrote {piece.key!r}, which was not its share."
        if identity in seen:
            return f"worker {report.worker} wrote {piece.key!r} twice."
        seen.add(identity)
        if (piece.dtype, piece.shape) != (planned.entry.dtype, planned.shape):
            return (
                f"worker {report.worker} wrote {piece.key!r} as {piece.dtype}{list(piece.shape)}; "
                f"the plan says {planned.entry.dtype}{list(planned.shape)}."
            )
    missing: Sequence[tuple[str, str]] = sorted(share.keys() - seen)
    if missing:
        return (
            f"worker {report.worker} did not write {missing[0][0]!r} "
            f"({len(missing)} of {len(share)} entries are missing)."
        )
    return None


def unequal_states(reports: Sequence[Report]) -> str | None:
    """Returns what is wrong if only some of the workers have a state of their own, or None."""
    without = [report.worker for report in reports if report.own is None]
    if len(without) in (0, len(reports)):
        return None
    who = ", ".join(f"worker {worker}" for worker in without)
    return (
        f"worker_checkpoint was given on some workers, but not on these: {who}. Give it on all "
        "workers, or on none."
    )
