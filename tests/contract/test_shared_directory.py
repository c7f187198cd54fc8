from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from distckpt import errors
from distckpt.coordination import shared_directory_heartbeats as heartbeats
from distckpt.coordination.shared_directory import SharedDirectory
from distckpt.storage import local
from distckpt.testing.coordinator_clauses import WORKERS
from distckpt.testing.coordinator_contract import CoordinatorContract

from ..unit.kit.eventually import eventually

_QUICK = {"heartbeat_seconds": 0.05, "lost_after": 1.0}

_LIVE = """
import sys, time
from distckpt.coordination.shared_directory import SharedDirectory
SharedDirectory(sys.argv[1], "run", 1, 2, heartbeat_seconds=0.05, lost_after=1.0)
print("ready", flush=True)
time.sleep(60)
"""

_WATCH = """
import sys, time
from distckpt.coordination.shared_directory import SharedDirectory
me = SharedDirectory(sys.argv[1], "run", 0, 2, heartbeat_seconds=0.05, lost_after=1.0)
print("ready", flush=True)
deadline = time.monotonic() + 3.2
while time.monotonic() < deadline:
    if me.lost():
        print(me.lost())
        break
    time.sleep(0.001)
print("looked")
"""


class TestSharedDirectory(CoordinatorContract):
    @pytest.fixture
    def coordinators(self, tmp_path):
        yield from _jobs(tmp_path)

    def kill(self, coordinators, index):
        coordinators[index]._heartbeats.fall_silent()


class TestSharedDirectoryWithoutHardLinks(TestSharedDirectory):
    @pytest.fixture
    def coordinators(self, tmp_path, monkeypatch):
        def refuse(source, target):
            raise PermissionError(1, "no hard links here", source)

        monkeypatch.setattr(local.os, "link", refuse)
        yield from _jobs(tmp_path)


def _jobs(tmp_path):
    workers = [SharedDirectory(str(tmp_path), "run", n, WORKERS, **_QUICK) for n in range(WORKERS)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
def chief(tmp_path):
    coordinator = SharedDirectory(str(tmp_path), "run", 0, 2, **_QUICK)
    yield coordinator
    coordinator.close()


@pytest.fixture
def process(tmp_path):
    """Worker 1 of 2, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LIVE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate(timeout=300)


def test_a_killed_process_is_lost_and_the_reason_names_it(chief, process):
    time.sleep(0.3)
    assert chief.lost() == {}
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: 1 in chief.lost())
    assert 0.8 < time.monotonic() - killed < 8
    assert chief.lost() == {
        1: f"no heartbeat for 1 s, on host {socket.gethostname()}, pid {process.pid}"
    }


def test_a_worker_that_has_never_started_has_not_joined(chief):
    time.sleep(0.3)
    assert not chief.has_joined(1)
    assert chief.has_joined(0)
    assert chief.lost() == {}


def test_a_stopped_process_is_lost_until_it_goes_on(chief, process):
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: 1 in chief.lost())
    process.send_signal(signal.SIGCONT)
    eventually(lambda: chief.lost() == {})


def test_a_worker_that_leaves_is_reported_at_once(chief, tmp_path):
    other = SharedDirectory(str(tmp_path), "run", 1, 2, **_QUICK)
    time.sleep(0.2)
    assert chief.lost() == {}
    other.close()
    other.close()
    eventually(lambda: 1 in chief.lost())
    assert "has left the job" in chief.lost()[1]
    assert str(os.getpid()) in chief.lost()[1]


def test_a_worker_that_never_came_is_missing_but_not_lost(chief):
    time.sleep(1.4)
    assert chief.lost() == {}


def test_only_a_change_counts_not_the_time_in_the_file(chief, process, tmp_path):
    """The other host's clock is a day behind."""
    yesterday = time.time() - 86400
    deadline = time.monotonic() + 2.0
    heartbeat = tmp_path / "run" / "worker-00001"
    while time.monotonic() < deadline:
        os.utime(heartbeat, (yesterday, yesterday))
        yesterday += 0.05
        time.sleep(0.05)
        assert chief.lost() == {}


def test_a_deleted_heartbeat_file_is_written_again(chief, process, tmp_path):
    (tmp_path / "run" / "worker-00001").unlink()
    eventually((tmp_path / "run" / "worker-00001").exists)
    time.sleep(1.3)
    assert chief.lost() == {}


def test_time_in_which_everybody_was_held_up_is_not_counted(process, tmp_path):
    """As when the laptop sleeps, or the file system hangs."""
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout.readline() == "ready\n"
    time.sleep(0.3)
    for one in (process, watcher):
        one.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    watcher.send_signal(signal.SIGCONT)
    time.sleep(0.15)
    process.send_signal(signal.SIGCONT)
    assert watcher.communicate(timeout=300)[0] == "looked\n"


def test_a_heartbeat_file_that_cannot_be_understood_is_no_sign_of_life(chief, tmp_path):
    (tmp_path / "run" / "worker-00001").write_text("not JSON")
    time.sleep(1.4)
    assert chief.lost() == {}


def test_a_restarted_job_meets_nothing_of_its_predecessor(tmp_path):
    first = SharedDirectory(str(tmp_path), "run-1", 1, 2, **_QUICK)
    first.publish("a", "old")
    first._heartbeats.fall_silent()
    second = SharedDirectory(str(tmp_path), "run-2", 0, 2, **_QUICK)
    time.sleep(1.4)
    assert second.fetch(["a"], 0) is None
    assert second.lost() == {}
    second.close()


def test_only_the_chief_watches_all_and_tells_the_others(tmp_path, monkeypatch):
    count, opened = 40, []

    def counting(path, *arguments):
        opened.append(path)
        return open(path, *arguments)

    monkeypatch.setattr(heartbeats, "open", counting, raising=False)
    times = {"heartbeat_seconds": 0.2, "lost_after": 4.0}
    workers = [SharedDirectory(str(tmp_path), "run", n, count, **times) for n in range(count)]
    time.sleep(0.5)
    opened.clear()
    time.sleep(2.0)
    assert len(opened) < 2 * count * 11  # in ten intervals, each worker touches one file, too
    workers[7].close()
    eventually(lambda: all(set(one.lost()) == {7} for one in workers if one is not workers[7]))
    assert "has left the job" in workers[20].lost()[7]
    assert workers[20].has_joined(30)
    for one in workers:
        one.close()


def test_a_run_id_that_was_used_before_is_refused(chief, process, tmp_path):
    with pytest.raises(
        errors.ConfigurationError, match=r"already joined.*`run_id` of its own"
    ) as no:
        SharedDirectory(str(tmp_path), "run", 1, 2, **_QUICK)
    assert f"pid {process.pid})" in str(no.value)
    assert chief.lost() == {}


def test_a_worker_that_has_left_cannot_join_the_same_run_again(tmp_path):
    others = {t.ident for t in threading.enumerate()}
    SharedDirectory(str(tmp_path), "run", 0, 2, **_QUICK).close()
    with pytest.raises(errors.ConfigurationError, match="already joined"):
        SharedDirectory(str(tmp_path), "run", 0, 2, **_QUICK)
    eventually(
        lambda: (
            not any(
                t.name == "distckpt-heartbeat" and t.ident not in others
                for t in threading.enumerate()
            )
        )
    )


def test_a_value_that_is_still_being_written_is_not_there(chief, tmp_path):
    (tmp_path / "run" / "key.a").write_bytes(b"")
    assert chief.fetch(["a"], 0.1) is None


@pytest.mark.parametrize("key", ["..", "../../outside", "a/../../b"])
def test_no_key_leads_out_of_the_directory(chief, tmp_path, key):
    chief.publish(key, "value")
    assert chief.fetch([key], 0) == (key, "value")
    assert os.listdir(tmp_path) == ["run"]


def test_forgetting_deletes_the_file(chief, tmp_path):
    chief.publish("a/b", "value")
    chief.forget(["a/b"])
    assert os.listdir(tmp_path / "run") == ["worker-00000"]


def test_a_directory_that_vanishes_is_an_error_that_names_it_and_the_worker(chief, tmp_path):
    os.rename(tmp_path / "run", tmp_path / "gone")
    with pytest.raises(errors.WorkerLostError, match=r"worker 0 cannot use .*run"):
        chief.publish("a", "value")
    os.rename(tmp_path / "gone", tmp_path / "run")
    chief.publish("a", "value")


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.DirectoryError, match="worker 0 cannot use"):
        SharedDirectory(str(tmp_path / "file"), "run", 0, 1)


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/b", ".hidden", "a b", "é"])
def test_a_run_id_that_is_no_plain_name_is_refused(tmp_path, run_id):
    with pytest.raises(errors.ConfigurationError, match="run_id"):
        SharedDirectory(str(tmp_path), run_id, 0, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"index": 2}, "no worker 2 in a job of 2"),
        ({"index": -1}, "no worker -1"),
        ({"heartbeat_seconds": 4.0}, "three times"),
        ({"heartbeat_seconds": 0.0}, "three times"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments, text):
    with pytest.raises(errors.ConfigurationError, match=text):
        SharedDirectory(str(tmp_path), "run", **{"index": 0, "count": 2, **arguments})
    assert os.listdir(tmp_path) == []


def test_close_ends_the_thread(tmp_path):
    coordinator = SharedDirectory(str(tmp_path), "run", 0, 1)
    coordinator.close()
    assert not coordinator._heartbeats._thread.is_alive()


def test_shared_directory_and_in_process_import_no_tensorflow():
    program = (
        "import sys, distckpt.coordination.shared_directory, distckpt.coordination.in_process;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=300, check=False).returncode == 0


def test_a_worker_that_joins_slowly_does_not_take_its_own_heartbeat_for_another(
    tmp_path, monkeypatch
):
    join = heartbeats.Heartbeats._join

    def slowly(one):
        time.sleep(0.3)
        join(one)

    monkeypatch.setattr(heartbeats.Heartbeats, "_join", slowly)
    one = SharedDirectory(str(tmp_path), "run", 0, 1, heartbeat_seconds=0.05, lost_after=0.5)
    one.close()
