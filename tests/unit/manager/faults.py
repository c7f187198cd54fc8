"""What goes wrong once, on one worker, in a call of ``save()``."""

from __future__ import annotations

import threading

from distckpt.state.capture import Capture


class Broken(Exception):
    """What a program raises."""


def fail(*unused):
    raise Broken("on one worker")


def bad_metric(worker, monkeypatch):
    return worker.save(metrics={"loss": "n/a"})


def unreadable_state(worker, monkeypatch):
    take = Capture.take

    def fail(self, *arguments):
        if threading.current_thread() is here:
            raise OSError("unreadable")
        return take(self, *arguments)

    here = threading.current_thread()
    monkeypatch.setattr(Capture, "take", fail)
    try:
        return worker.save()
    finally:
        monkeypatch.setattr(Capture, "take", take)


def bad_number(worker, monkeypatch):
    return worker.save(checkpoint_number=1.5)


FAULTS = [bad_metric, unreadable_state, bad_number]
