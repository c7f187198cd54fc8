"""What goes wrong once, on one worker, in a call of ``save()``."""

from __future__ import annotations

import threading

import tensorflow as tf

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


def wrong_options(worker, monkeypatch):
    return worker.save(options="none")


def in_a_function(worker, monkeypatch):
    return worker.attempt(tf.function(lambda: worker.manager.save()))


FAULTS = [bad_metric, unreadable_state, bad_number, wrong_options, in_a_function]
