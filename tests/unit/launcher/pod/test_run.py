"""``distckpt launch`` in pods: a process each, with names that resolve as those of pods do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import portpicker
import pytest

import distckpt
from distckpt import exit_codes
from distckpt.errors import DistckptError
from distckpt.launcher.guarded import GuardedProcess
from distckpt.launcher.pod import PodSpec
from distckpt.launcher.pod import run as run_pod

from ...kit.pods import SHOW, Pods, ends, needs_namespaces


@pytest.fixture
def pods(tmp_path):
    found = Pods(tmp_path)
    yield found
    found.close()


@needs_namespaces
def test_three_pods_of_an_indexed_job_find_each_other(pods):
    pods.names("job-0.net", "job-1.net", "job-2.net")
    started = [pods.start(index, SHOW) for index in (2, 0)]
    time.sleep(0.5)  # the last pod comes later
    started.append(pods.start(1, SHOW))
    for index, (code, out, messages) in zip((2, 0, 1), ends(started), strict=True):
        assert code == 0, messages
        assert out == f"{index}\n"  # as the program has written it
        assert f"this is worker {index}, according to an Indexed Job" in messages
        assert "all 3 workers have come" in messages


@needs_namespaces
def test_an_exception_of_the_program_becomes_an_exit_code(pods):
    pods.names("job-0.net", "job-1.net")
    code = "import distckpt; raise distckpt.errors.WorkerLostError('worker 0 has gone')"
    ending = ends([pods.start(0, "print(1)", count=2), pods.start(1, code, count=2)])
    assert [code for code, *_ in ending] == [0, 69]
    assert "worker 1 (pid" in ending[1][2]
    assert "exited with code 69 (another worker was lost or never came" in ending[1][2]
    assert "restart" not in ending[1][2]


@needs_namespaces
def test_names_that_never_resolve_stop_retries(pods):
    pods.names("job-0.other")
    ((code, _, messages),) = ends([pods.start(0, SHOW, "--peer-deadline", "1")])
    assert code == 78
    assert "job-1.net, job-2.net" in messages
    assert "headless Service" in messages
    assert "Traceback" not in messages


@needs_namespaces
def test_a_pod_that_never_starts_is_named_and_all_may_try_again(pods):
    pods.names("job-0.net", "job-1.net", "job-2.net")
    ending = ends([pods.start(i, SHOW, "--peer-deadline", "3") for i in (0, 1)])
    assert [code for code, *_ in ending] == [69, 69]
    for _, out, messages in ending:
        assert out == ""
        assert f"worker 2 (job-2.net:{pods.port})" in messages


@needs_namespaces
def test_an_index_beyond_the_number_of_workers_stops_retries(pods):
    pods.names()
    ((code, _, messages),) = ends([pods.start(3, SHOW)])
    assert code == 78
    assert "there are only 3 (0 to 2)" in messages


@needs_namespaces
def test_a_signal_while_it_waits_for_others_ends_it_at_once(pods):
    pods.names("job-0.net", "job-1.net", "job-2.net")
    process = pods.start(0, SHOW)
    for line in process.stderr:
        if "this is worker 0" in line:
            break
    process.send_signal(signal.SIGTERM)
    ((code, _, messages),) = ends([process])
    assert code == 143
    assert "SIGTERM before the worker was started" in messages


# --- Without namespaces ---------------------------------------------------------------------------

# As the look-up of a name may, it does not come back to Python for a signal.
HANGS = """
import ctypes, sys
from distckpt.cli import main
from distckpt.coordination import rendezvous

def hang(*_):
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

rendezvous.meet = hang
sys.argv = ["distckpt", "launch", "--", "true"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_that_does_not_come_back_to_python(number):
    (text,) = config(2, 1)
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS],
        env={**os.environ, "TF_CONFIG": text},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            for line in process.stderr:
                if "this is worker 1" in line:
                    break
            time.sleep(0.5)  # it hangs now
            process.send_signal(number)
            assert process.wait(20) == 128 + number
        finally:
            process.kill()


def launch(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(Path(distckpt.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "distckpt", "launch", *arguments],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def config(count, index):
    ports = [portpicker.pick_unused_port() for _ in range(count)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}})
        for i in range(count)
    ][slice(None) if index is None else slice(index, index + 1)]


def test_tf_config_is_passed_on_as_it_is():
    code = "import os; print(os.environ['TF_CONFIG'])"
    configs = config(2, None)
    started = [launch("--", sys.executable, "-c", code, TF_CONFIG=text) for text in configs]
    for text, (code, out, messages) in zip(configs, ends(started), strict=True):
        assert code == 0, messages
        assert out == f"{text}\n"
        assert "according to TF_CONFIG" in messages


def test_a_console_that_nobody_reads_keeps_no_signal_from_the_worker(tmp_path):
    code = "import signal, pathlib, sys\n"
    code += "def end(*_): pathlib.Path(sys.argv[1]).write_text('told'); sys.exit(75)\n"
    code += "signal.signal(signal.SIGTERM, end); print('ready', flush=True); signal.pause()"
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(Path(distckpt.__file__).parents[1])}
    command = [sys.executable, "-m", "distckpt", "launch", "--", sys.executable, "-c", code]
    process = subprocess.Popen(
        [*command, tmp_path / "told"],
        env={**environment, "TF_CONFIG": config(1, 0)[0]},
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * 4096)
        os.set_blocking(writing, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
        assert (tmp_path / "told").read_text() == "told"
    finally:
        process.kill()
        process.communicate()
        os.close(reading)
        os.close(writing)


def test_a_machine_that_cannot_start_the_worker_is_to_blame_itself(monkeypatch):
    monkeypatch.setattr(sys.modules[run_pod.__module__], "START_DEADLINE", 0.0)
    monkeypatch.setenv("TF_CONFIG", config(1, 0)[0])
    with pytest.raises(DistckptError, match="too busy, or out of memory") as caught:
        run_pod(PodSpec(command=["true"]))
    assert exit_codes.of(caught.value) == 1


def test_a_worker_that_has_ended_before_the_launcher_looks_has_started(monkeypatch):
    receive = GuardedProcess.receive

    def late(process):
        process._guard.wait(30)
        receive(process)

    monkeypatch.setattr(GuardedProcess, "receive", late)
    monkeypatch.setenv("TF_CONFIG", config(1, 0)[0])
    assert run_pod(PodSpec(command=["true"])) == 0


def test_a_hangup_that_was_to_be_ignored_is_while_it_waits():
    code = "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    code += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    environment = {**os.environ, "PYTHONPATH": str(Path(distckpt.__file__).parents[1])}
    launcher = ["-m", "distckpt", "launch", "--peer-deadline", "60", "--", "true"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *launcher],
        env={**environment, "TF_CONFIG": config(2, None)[1]},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "this is worker 1" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    finally:
        process.kill()
        process.communicate()


POLITE = """
import signal, sys, time
def end(*_):
    sys.exit({code})
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("found", "expected"), [(69, 138), (75, 138), (76, 138), (78, 78), (0, 0)])
def test_a_code_for_schedulers_that_judge_by_ranges(found, expected):
    code = f"import sys; sys.exit({found})"
    one = config(1, 0)[0]
    ((end, _, _),) = ends(
        [launch("--retry-code", "138", "--", sys.executable, "-c", code, TF_CONFIG=one)]
    )
    assert end == expected


@pytest.mark.parametrize("expected", [0, 75, 76, 3])
def test_after_a_signal_the_worker_s_own_exit_code_counts(expected):
    code = POLITE.format(code=expected)
    process = launch("--", sys.executable, "-c", code, TF_CONFIG=config(1, 0)[0])
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    ((found, _, messages),) = ends([process])
    assert found == expected, messages
    assert "SIGTERM: forwarded" in messages


def test_a_worker_that_does_not_end_in_its_grace_is_killed():
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "print('ready', flush=True)\ntime.sleep(60)"
    one = config(1, 0)[0]
    process = launch("--", sys.executable, "-c", code, TF_CONFIG=one, DISTCKPT_GRACE_SECONDS="0.2")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    ((found, _, messages),) = ends([process])
    assert found == 137
    assert "not ended in time: worker 0; killing" in messages


def test_a_command_that_is_not_there_is_not_waited_for():
    """Nobody else comes; nobody is waited for."""
    ((code, _, messages),) = ends([launch("--", "no-such-command", TF_CONFIG=config(2, 1)[0])])
    assert code == 127
    assert "Cannot run 'no-such-command': No such file or directory" in messages


def test_a_command_that_cannot_be_executed():
    ((code, _, messages),) = ends([launch("--", "/etc/passwd", TF_CONFIG=config(1, 0)[0])])
    assert code == 126
    assert "Cannot run '/etc/passwd': Permission denied" in messages
