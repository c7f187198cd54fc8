"""The same in a job of several workers: none waits for a worker without threads."""

from __future__ import annotations

import time

import pytest

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol.slow_or_stuck import Patience

from ..kit.lab import Chief, FastStorage, number_of
from ..kit.refusing import Refusing


class Slow(FastStorage):
    def flush(self, path):
        time.sleep(0.1)
        super().flush(path)


@pytest.mark.parametrize(("number", "more"), [(0, True), (0, False), (1, False), (2, False)])
def test_all_save_and_save_again(tmp_path, monkeypatch, number, more):
    monkeypatch.setattr(Patience, "interval", 0.02)
    chief = Chief(tmp_path, Slow())
    with monkeypatch.context() as limited:
        refusing = Refusing(limited, number, more=more)
        chief.save("ckpt-1", 1, 3, others=[Slow(), Slow()])
    assert chief.workers_ends == [None, None]
    assert len(refusing.refused) >= 1
    chief.save("ckpt-2", 2, 3)
    assert chief.workers_ends == [None, None]
    assert [number_of(tmp_path, name) for name in ("ckpt-1", "ckpt-2")] == [1, 2]


def test_words_of_progress_are_forgotten_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(Patience, "interval", 0.005)
    said, publish = [], InProcessJob.publish

    def listen(job, caller, key, value):
        publish(job, caller, key, value)
        if "/progress-" in key:
            said.append(key)

    monkeypatch.setattr(InProcessJob, "publish", listen)
    chief = Chief(tmp_path, Slow())
    for number in range(1, 9):
        chief.save(f"ckpt-{number}", number, 3, others=[Slow(), Slow()])
        assert chief.workers_ends == [None, None]
        assert [key for key in chief.job._values if "/progress-" in key] == []
    assert len(said) > 8 * 3
