"""What listeners of real managers hear, and that nothing they do harms a save."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import textwrap
import threading
import time

import pytest
import tensorflow as tf

import distckpt
from distckpt import errors, events
from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol.phases import ALL
from distckpt.listeners import dispatcher
from distckpt.storage.local import LocalStorage

from ..kit import warm
from ..state.conftest import together
from .conftest import FAST


@pytest.fixture(autouse=True)
def own_post(monkeypatch):
    monkeypatch.setattr(dispatcher, "_post", dispatcher._Post())


class Heard(list):
    """A listener that remembers."""

    __call__ = list.append

    def names(self):
        return [type(event).__name__ for event in self]

    def only(self, kind):
        (found,) = [event for event in self if type(event) is kind]
        return found


def options(*listeners, **changes):
    return dataclasses.replace(FAST, listeners=listeners, **changes)


class Job:
    """Managers of several workers in this process, each with a listener."""

    def __init__(self, directory, workers, max_to_keep=2, **changes):
        job = InProcessJob(workers)
        self.heard = [Heard() for _ in range(workers)]
        self.values = [tf.Variable(tf.zeros([64, 4])) for _ in range(workers)]
        self.managers = [
            distckpt.CheckpointManager(
                tf.train.Checkpoint(value=self.values[worker]),
                directory,
                max_to_keep,
                coordinator=job.coordinator(worker),
                options=options(self.heard[worker], **changes),
            )
            for worker in range(workers)
        ]

    def all(self, call):
        try:
            return together([lambda m=manager: call(m) for manager in self.managers])
        finally:
            self.managers[0]._common.job.emit.flush()


def save(manager):
    return manager.save()


def forget(*heard):
    dispatcher.flush_all()
    for one in heard:
        one.clear()


# --- What is heard


def test_a_save_of_one_worker(make, tmp_path):
    heard = Heard()
    checkpoint = tf.train.Checkpoint(value=tf.Variable([1.0, 2.0]))
    before = time.time()
    with make(checkpoint, tmp_path, 1, options=options(heard)) as manager:
        manager.save()
    kinds = "SaveStarted Captured ShardWritten Gathered Committed Resumed"
    assert heard.names() == kinds.split()
    assert all(before <= event.time <= time.time() for event in heard)
    assert {(e.worker, e.workers, e.directory) for e in heard} == {(0, 1, str(tmp_path))}
    committed = heard.only(events.Committed)
    assert (committed.name, committed.path) == ("ckpt-1", f"{tmp_path}/ckpt-1")
    assert committed.step == 1
    assert committed.bytes > 8
    assert 0 < heard.only(events.Captured).seconds <= committed.seconds
    assert committed.seconds <= heard.only(events.Resumed).seconds
    shard = heard.only(events.ShardWritten)
    assert shard.bytes >= 8
    assert 0 < shard.write_seconds + shard.flush_seconds <= shard.seconds + 0.01
    forget(heard)
    with manager:
        manager.save(metrics={"loss": 0.5})
    assert heard.only(events.Committed).metrics == {"loss": 0.5}
    assert heard.only(events.Pruned).names == ("ckpt-1",)


def test_a_save_and_a_restore_of_three_workers(tmp_path):
    job = Job(tmp_path, 3)
    job.all(save)
    every = ["SaveStarted", "Captured", "ShardWritten", "Committed", "Resumed"]
    chief, *others = [heard.names() for heard in job.heard]
    assert chief == [*every[:3], "Gathered", *every[3:]]
    assert others == [every, every]
    assert [heard[0].worker for heard in job.heard] == [0, 1, 2]
    assert {heard.only(events.Committed).bytes for heard in job.heard} == {
        job.heard[0].only(events.Committed).bytes
    }
    assert job.heard[0].only(events.Gathered).last in (1, 2)
    forget(*job.heard)
    job.all(lambda manager: manager.restore_or_initialize())
    assert [heard.names() for heard in job.heard] == [["Restored"]] * 3
    assert job.heard[2][0].path == f"{tmp_path}/ckpt-1"


def test_the_manifest_has_the_phases_of_all_workers(tmp_path, observer):
    before = time.time()
    Job(tmp_path, 3).all(save)
    manifest = observer.verify(tmp_path, "ckpt-1")
    names = [[phase.name for phase in worker.phases] for worker in manifest.workers]
    assert names[0] == ["hold", "wait", "open", "write", "flush", "gather", "merge"]
    assert names[1] == names[2] == ["hold", "wait", "write", "flush"]
    for worker in manifest.workers:
        assert {phase.name for phase in worker.phases} <= set(ALL)
        for phase, following in zip(worker.phases, worker.phases[1:], strict=False):
            assert phase.ended == pytest.approx(following.began, abs=0.001)
        assert before - 0.001 <= worker.phases[0].began
        assert worker.phases[-1].ended <= manifest.committed_at + 0.1


def test_an_asynchronous_save_resumes_before_it_is_committed(make, tmp_path):
    heard = Heard()
    checkpoint = tf.train.Checkpoint(value=tf.Variable([1.0]))
    with make(checkpoint, tmp_path, 1, options=options(heard, enable_async=True)) as manager:
        manager.save()
    stopped, committed = heard.only(events.Resumed), heard.only(events.Committed)
    assert stopped.seconds < committed.seconds + 1
    assert heard.names().index("Captured") < heard.names().index("Resumed")


def test_a_save_that_is_skipped(make, tmp_path, monkeypatch):
    heard, gate = Heard(), threading.Event()

    class Slow(LocalStorage):
        def write(self, *args, **kwargs):
            gate.wait(30)
            super().write(*args, **kwargs)

    monkeypatch.setattr("distckpt.manager.checkpoint_manager.storage_for", lambda directory: Slow())
    given = options(heard, enable_async=True, when_busy="skip")
    with make(tf.train.Checkpoint(value=tf.Variable(1.0)), tmp_path, 1, options=given) as manager:
        manager.save()
        assert manager.save() is None
        gate.set()
    assert heard.only(events.SaveSkipped).skipped == 1


def test_a_save_that_fails_names_the_culprit_to_all(tmp_path, monkeypatch):
    job = Job(tmp_path, 2)

    def write(*args, **kwargs):
        raise OSError(28, "No space left on device")

    job.all(save)
    forget(*job.heard)
    monkeypatch.setattr("distckpt.saving.shard_writer.ShardWriter._write_part", write)
    with pytest.raises(errors.StorageFullError):
        job.all(save)
    for heard in job.heard:
        failed = heard.only(events.SaveFailed)
        assert (failed.name, failed.error) == ("ckpt-2", "StorageFullError")
        assert "no space left" in failed.message
        assert failed.culprit in (0, 1)
        assert heard.names()[-1] == "SaveFailed"


def test_a_call_that_raises_before_its_save_begins_is_told_only_by_the_others(tmp_path):
    job = Job(tmp_path, 2)

    def save_badly(manager):
        wrong = manager is job.managers[1]
        with pytest.raises(errors.DistckptError, match="n/a"):
            manager.save(metrics={"loss": "n/a" if wrong else 1.0})

    job.all(save_badly)
    chief, worker = job.heard
    assert (chief.names()[0], chief.names()[-1]) == ("SaveStarted", "SaveFailed")
    assert chief.only(events.SaveFailed).culprit == 1
    assert worker == []


def test_a_state_that_cannot_be_captured_is_a_failure(make, tmp_path, monkeypatch):
    heard = Heard()

    def take(*args):
        raise ValueError("no such state")

    manager = make(tf.train.Checkpoint(), tmp_path, 1, options=options(heard))
    monkeypatch.setattr("distckpt.state.capture.Capture.take", take)
    with pytest.raises(ValueError, match="no such state"):
        manager.save()
    manager._common.job.emit.flush()
    assert heard.names() == ["SaveStarted", "SaveFailed"]


def test_a_replaced_chief_says_who_has_replaced_it(make, tmp_path, another_process):
    heard = Heard()
    old = make(tf.train.Checkpoint(), tmp_path, 5, options=options(heard))
    old.save()
    another_process()
    make(tf.train.Checkpoint(), tmp_path, 5).save(9)
    forget(heard)
    with pytest.raises(errors.SupersededError):
        old.save()
    old._common.job.emit.flush()
    assert heard.names() == ["SaveStarted", "Captured", "SaveFailed", "Fenced"]
    by = heard.only(events.Fenced).by
    assert f"pid {os.getpid()}, term 2" in by
    assert "This process" not in by


def test_a_fall_back_and_a_restore_that_fails(make, tmp_path):
    heard = Heard()
    manager = make(tf.train.Checkpoint(value=tf.Variable(1.0)), tmp_path, 5, options=options(heard))
    manager.save()
    manager.save()
    (tmp_path / "ckpt-2.index").write_bytes(b"x")
    forget(heard)
    with manager:
        manager.restore_or_initialize()
    assert heard.names() == ["FellBack", "Restored"]
    assert heard[0].name == "ckpt-2"
    assert heard[1].name == "ckpt-1"
    (tmp_path / "ckpt-1.index").write_bytes(b"x")
    forget(heard)
    with pytest.raises(errors.RestoreError):
        manager.restore_or_initialize()
    manager._common.job.emit.flush()
    assert heard.names() == ["FellBack", "FellBack", "RestoreFailed"]
    assert heard[-1].error == "RestoreError"


def test_an_interrupted_save_is_one_that_fails(make, tmp_path, monkeypatch):
    heard = Heard()

    class Interrupted(LocalStorage):
        def rename(self, *args):
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: Interrupted()
    )
    manager = make(tf.train.Checkpoint(), tmp_path, 5, options=options(heard))
    with pytest.raises(KeyboardInterrupt):
        manager.save()
    manager._common.job.emit.flush()
    assert heard.only(events.SaveFailed).error == "KeyboardInterrupt"


# --- Listeners that misbehave


def fails(event):
    raise RuntimeError("broken")


def test_listeners_that_fail_or_hang_do_not_harm_a_save(make, observer, tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(dispatcher, "MOST_WAITING", 4)
    given = options(fails, lambda event: never.wait(100))
    checkpoint = tf.train.Checkpoint(value=tf.Variable(1.0))
    manager = make(checkpoint, tmp_path, 2, options=given)
    began = time.monotonic()
    try:
        for number in range(1, 6):
            assert manager.save() == f"{tmp_path}/ckpt-{number}"
        assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-5"
        assert time.monotonic() - began < 20
        assert observer.leftovers(tmp_path) == []
        assert dispatcher._post.dropped > 5
    finally:
        never.set()


@pytest.mark.parametrize("listeners", [fails, 7, [7], "log", None, {fails}])
def test_what_is_no_list_of_functions_is_refused(listeners):
    with pytest.raises(errors.ConfigurationError, match=r"ManagerOptions\.listeners must be"):
        distckpt.ManagerOptions(listeners=listeners)


def test_a_list_is_taken_as_it_is_now():
    given = [fails]
    taken = distckpt.ManagerOptions(listeners=given)
    given.clear()
    assert taken.listeners == (fails,)


def test_a_program_that_is_told_to_end_says_so(tmp_path):
    program = """
    import os, signal, sys, tensorflow as tf, distckpt
    def listen(event):
        print(type(event).__name__, getattr(event, "seconds_left", ""), flush=True)
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(value=tf.Variable(1.0)), sys.argv[1], 2,
        options=distckpt.ManagerOptions(listeners=[listen], durable=False))
    handler = distckpt.handle_preemption(manager, grace_seconds=30)
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(3):
        handler.save_checkpoint_if_preempted()
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(program))
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = warm.run([path, tmp_path / "run"], env=env, cwd=tmp_path, timeout=400)
    assert done.returncode == 75, done.stderr[-2000:]
    said = done.stdout.split("\n")
    assert said[0] == "Preempted 30.0"
    assert "Committed " in said


def test_each_save_and_each_restore_is_one_line_of_the_log(tmp_path, make, caplog):
    caplog.set_level(logging.INFO, logger="distckpt")
    manager = make(tf.train.Checkpoint(value=tf.Variable(1.0)), tmp_path, 2)
    manager.save()
    manager.restore_or_initialize()
    told = [r.getMessage() for r in caplog.records if r.name == "distckpt"]
    saved, restored = (re.sub(r"[0-9.]+ s", "… s", line) for line in told)
    assert re.fullmatch(rf"Saved {tmp_path}/ckpt-1 \(step 1, \d+ B\) in … s\.", saved)
    assert restored == f"Restored {tmp_path}/ckpt-1 in … s."


def test_a_manager_is_shown_with_its_directory_and_its_newest_checkpoint(tmp_path, make):
    manager = make(tf.train.Checkpoint(), tmp_path, 2)
    assert repr(manager).endswith(f"{str(tmp_path)!r}: 0 managed, newest none>")
    manager.save()
    assert repr(manager).endswith(": 1 managed, newest ckpt-1>")
