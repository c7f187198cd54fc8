"""A small save for the state machines: plans, messages and events of it."""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol import actions as s
from distckpt.core.protocol.messages import Opening, Rendezvous, Report, WrittenPiece
from distckpt.core.protocol.worker_save import WorkerSave
from distckpt.core.protocol.write_plan import Entry, make_plan
from distckpt.errors import Failure

ENTRIES = [
    Entry("kernel", "float32", (96, 128), 96 * 128 * 4),
    Entry("bias", "float32", (128,), 512),
    Entry("graph", "string", (), 16, chief_only=True),
]

TOTAL = Entry("total", "float32", (), 4, collective=True)

FAILURE = Failure("StorageFullError", "full", 1)


def plan(workers=2, *, collective=False):
    return make_plan([*ENTRIES, TOTAL] if collective else ENTRIES, workers)


def opening(of=None, **changes):
    fingerprint = (of or plan()).fingerprint
    return dataclasses.replace(Opening("a1", "ckpt-1", "/d", fingerprint, "t"), **changes)


def report(worker, of=None):
    pieces = tuple(
        WrittenPiece(p.entry.key, p.entry.dtype, p.shape, p.spec, 0, 0, p.nbytes, 0)
        for p in (of or plan()).shares[worker]
    )
    return Report(worker, "h", 1, 0.0, ("shard",), (), pieces)


def worker(index=1, name="ckpt-1", directory="/d", of=None):
    return WorkerSave(index, name, directory, of or plan())


def drive(machine, *events):
    """Starts a state machine and passes events to it; returns the last actions."""
    actions = machine.start()
    for event in events:
        actions = machine.on(event)
    return actions


REPORTS = (report(0), report(1))

OPEN = s.Opened(opening())

WROTE = s.Written(report(0))

ANSWERED = s.Answered(report(1))

READY = s.Ready(1, plan(collective=True).fingerprint)

COMPLETE = s.Called(Rendezvous(plan(collective=True).fingerprint, True))
