"""Every transition of the protocol's machines: (machine, state, event)."""

from __future__ import annotations

_CHIEF = {
    "AwaitReady": ("Ready", "Answered", "Lost", "TimedOut"),
    "AnnounceRendezvous": ("Called", "Lost", "TimedOut"),
    "ReadTogether": ("Read", "Failed"),
    "Open": ("Opened", "Failed"),
    "Write": ("Written", "Failed", "Answered", "Lost"),
    "AwaitAnswer": ("Answered", "Lost", "TimedOut"),
    "Merge": ("Merged", "Failed"),
    "Commit": ("Committed", "Failed"),
    "Prune": ("Pruned",),
}
_WORKER = {
    "AwaitOpening": ("Called", "Opened", "Told", "TimedOut", "Lost"),
    "ReadTogether": ("Read", "Failed"),
    "AnnounceRendezvous": ("Called", "TimedOut", "Lost"),
    "Write": ("Written", "Failed"),
    "AwaitOutcome": ("Told", "Lost", "TimedOut"),
}
TRANSITIONS = frozenset(
    (machine, state, event)
    for machine, states in (("ChiefSave", _CHIEF), ("WorkerSave", _WORKER))
    for state, events in states.items()
    for event in events
)
