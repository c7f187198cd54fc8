from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil
import pytest

from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.launcher import CommandError, LocalCluster

from ..kit.eventually import eventually

SHOW = "import os; print(os.environ['TF_CONFIG']); print(os.environ['DISTCKPT_RUN_ID'])"


def python(code: str, workers: int = 2, **options) -> LocalCluster:
    return LocalCluster([sys.executable, "-c", code], workers=workers, **options)


def test_workers_get_a_tf_config_that_fits_together() -> None:
    with python(SHOW, workers=3, chief=True) as cluster:
        workers = cluster.wait(30.0)
    assert [worker.name for worker in workers] == ["chief", "worker 0", "worker 1"]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    configs, run_ids = zip(*(cluster.output(i).splitlines() for i in range(3)), strict=True)
    tasks = [json.loads(config)["task"] for config in configs]
    assert tasks == [
        {"type": "chief", "index": 0},
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]
    clusters = [json.loads(config)["cluster"] for config in configs]
    assert clusters[0] == clusters[1] == clusters[2]
    addresses = clusters[0]["chief"] + clusters[0]["worker"]
    assert len(set(addresses)) == 3
    assert len(set(run_ids)) == 1


def test_two_clusters_have_different_run_ids_and_ports() -> None:
    seen = []
    for _ in range(2):
        with python(SHOW, workers=1) as cluster:
            cluster.wait(30.0)
        seen.append(cluster.output(0).splitlines())
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_workers_run_each_in_a_session_of_its_own_when_start_returns() -> None:
    with python("import time; time.sleep(600)") as cluster:
        pids = [worker.pid for worker in cluster.processes]
        assert all(pid is not None and psutil.pid_exists(pid) for pid in pids)
        assert [os.getsid(pid) for pid in pids if pid is not None] == pids


def test_leaving_the_block_kills_everything(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "family.py")], workers=2) as cluster:
        pids = processes.wait_for(6)
    processes.all_gone(pids)
    assert [worker.returncode for worker in cluster.processes] == [-9, -9]


def test_leaving_the_block_by_an_error_kills_everything(processes, programs: Path) -> None:
    command = [sys.executable, str(programs / "family.py")]
    with pytest.raises(AssertionError, match="no family"), LocalCluster(command, workers=1):
        assert not processes.wait_for(3), "no family"
    processes.all_gone(processes.wait_for(3))


def test_a_cluster_that_is_forgotten_takes_its_workers_along(processes) -> None:
    cluster = python("import time; time.sleep(600)").start()
    pids = [worker.pid for worker in cluster.processes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # deserved, and not the point here
        del cluster
        gc.collect()
    processes.all_gone(pids)


def test_kill_hits_one_worker_and_not_the_others() -> None:
    with python("import time; time.sleep(600)", workers=3) as cluster:
        cluster.kill(1)
        deadline = time.monotonic() + 30.0
        while not cluster.poll(1.0)[1].gone and time.monotonic() < deadline:
            pass
        assert [worker.returncode for worker in cluster.processes] == [None, -signal.SIGKILL, None]


def test_kill_can_send_any_signal(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "polite.py")], workers=1) as cluster:
        processes.wait_for(1)
        cluster.kill(0, signal.SIGTERM)
        assert cluster.wait(30.0)[0].returncode == 0
    assert cluster.output(0) == "ready\ngot SIGTERM\n"


def test_killing_a_worker_that_has_ended_does_nothing_and_an_unknown_one_is_an_error() -> None:
    with python("pass", workers=1) as cluster:
        cluster.wait(30.0)
        cluster.kill(0)
        with pytest.raises(IndexError, match="no process 1; there are 1"):
            cluster.kill(1)
        assert cluster.processes[0].returncode == 0


def test_wait_names_those_that_still_run_and_lets_them() -> None:
    code = "import os, time; time.sleep(600 if '\"index\": 1' in os.environ['TF_CONFIG'] else 0)"
    with python(code) as cluster:
        with pytest.raises(DeadlineExceededError, match=r"these still run: worker 1 \(pid \d+\)\."):
            cluster.wait(1.0)
        assert cluster.processes[1].returncode is None


def test_stop_gives_workers_time_to_end(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "polite.py")], workers=2) as cluster:
        processes.wait_for(2)
        workers = cluster.stop(grace=30.0)
    assert [worker.returncode for worker in workers] == [0, 0]


def test_stop_kills_those_that_do_not_use_it(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "family.py")], workers=1) as cluster:
        pids = processes.wait_for(3)
        began = time.monotonic()
        assert cluster.stop(grace=0.3)[0].returncode == -signal.SIGKILL
        assert 0.3 <= time.monotonic() - began < 10.0
    processes.all_gone(pids)


def test_a_stopped_process_can_still_be_ended(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "polite.py")], workers=1) as cluster:
        pids = processes.wait_for(1)
        cluster.kill(0, signal.SIGSTOP)
        eventually(lambda: psutil.Process(pids[0]).status() == psutil.STATUS_STOPPED)
    processes.all_gone(pids)


@pytest.mark.parametrize(
    ("command", "exit_code"), [("no-such-command", 127), ("/etc/passwd", 126), ("/", 126)]
)
def test_a_command_that_cannot_run_is_an_error_and_leaves_nothing(
    command: str, exit_code: int
) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(CommandError, match=f"Cannot run '{command}'") as caught:
        LocalCluster([command], workers=2).start()
    assert caught.value.exit_code == exit_code
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_arguments_and_variables_need_not_be_utf_8() -> None:
    code = "import os, sys; print(os.fsencode(sys.argv[1]), os.environb[b'V'])"
    argument, value = os.fsdecode(b"\xff\xc3\xa4"), os.fsdecode(b"\xfe\xc3\xb6")
    command = [sys.executable, "-c", code, argument]
    with LocalCluster(command, workers=1, env={"V": value}) as cluster:
        cluster.wait(30.0)
    assert cluster.output(0) == "b'\\xff\\xc3\\xa4' b'\\xfe\\xc3\\xb6'\n"


def test_the_command_is_looked_up_on_the_path_of_the_worker(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    with LocalCluster(["tool"], workers=1, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}) as cluster:
        cluster.wait(30.0)
    assert cluster.output(0) == "found\n"


def test_a_log_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="log directory cannot be written"):
        python("pass", log_dir=tmp_path / "file" / "logs").start()


def test_a_log_directory_that_is_lost_does_not_stop_a_restart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with python("print(1)", workers=1, log_dir=tmp_path / "file", restart=1) as cluster:
        assert cluster.wait(30.0)[0].log is None
    assert cluster.output(0) == "1\n"


def test_logs_hold_the_output_as_it_was_written(tmp_path: Path) -> None:
    logs = tmp_path / "a" / "logs"
    code = "import os; os.write(1, b'out\\r\\xff'); os.write(2, b'err')"
    with python(code, workers=2, chief=True, log_dir=logs, restart=3) as cluster:
        workers = cluster.wait(30.0)
    assert sorted(os.listdir(logs)) == ["chief.restart-3.log", "worker-0.restart-3.log"]
    for worker in workers:
        assert worker.log is not None
        assert Path(worker.log).read_bytes() in (b"out\r\xfferr", b"errout\r\xff")


def test_all_bad_values_are_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="workers"):
        LocalCluster(["true"], workers=0)


def test_very_much_output_without_a_line_end_blocks_nobody() -> None:
    code = "import os\nfor _ in range(300): os.write(1, b'\\xff' * 100_000)\nos.write(1, b'end')"
    with python(code) as cluster:
        assert [worker.returncode for worker in cluster.wait(60.0)] == [0, 0]
    assert cluster.output(1).endswith("\N{REPLACEMENT CHARACTER}end")


def test_a_cluster_starts_once() -> None:
    with python("pass", workers=1) as cluster, pytest.raises(RuntimeError, match="only once"):
        cluster.start()


def test_a_cluster_that_was_never_started_has_no_processes() -> None:
    cluster = python("pass")
    assert cluster.processes == ()
    cluster.close()


def test_the_end_of_a_guard_is_the_end_of_its_worker(processes, programs: Path) -> None:
    with LocalCluster([sys.executable, str(programs / "polite.py")], workers=1) as cluster:
        pids = processes.wait_for(1)
        psutil.Process(pids[0]).parent().kill()
        assert cluster.wait(30.0)[0].returncode == -signal.SIGKILL
    processes.all_gone(pids)


def test_workers_outlive_the_thread_that_started_them() -> None:
    cluster = python("import time; time.sleep(0.5); print('whole')", workers=1)
    thread = threading.Thread(target=cluster.start)
    thread.start()
    thread.join()
    assert cluster.wait(30.0)[0].returncode == 0
    assert cluster.output(0) == "whole\n"


def test_nothing_is_left_open_or_running() -> None:
    def look() -> tuple[int, int, int]:
        process = psutil.Process()
        children = process.children(recursive=True)
        return process.num_fds(), threading.active_count(), len(children)

    with python("pass") as cluster:  # the first one loads modules
        cluster.wait(30.0)
    before = look()
    with python("pass") as cluster:
        cluster.wait(30.0)
    # Not "==": the garbage collector may close what earlier tests have left.
    assert all(now <= then for now, then in zip(look(), before, strict=True))
