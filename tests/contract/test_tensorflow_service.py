from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import portpicker
import psutil
import pytest

from distckpt import errors
from distckpt.testing import coordinator_clauses as contract

from ..unit.kit.eventually import eventually

_PROGRAM = Path(__file__).with_name("tensorflow_worker.py")
_DEADLINE = 400.0
_REPOSITORY = Path(__file__).parents[2]


class Cluster:
    """Processes that run one scenario of tensorflow_worker.py."""

    def __init__(self, folder, scenario, jobs):
        self._folder = folder
        self._scenario = scenario
        self._spec = {
            job: [f"127.0.0.1:{_free_port()}" for _ in range(count)] for job, count in jobs.items()
        }
        self._tasks = [(job, n) for job, count in jobs.items() for n in range(count)]
        self.processes = [self._start(index) for index in range(len(self._tasks))]

    def _start(self, index):
        job, number = self._tasks[index]
        config = {"cluster": self._spec, "task": {"type": job, "index": number}}
        environment = os.environ | {
            "TF_CONFIG": json.dumps(config),
            "PYTHONPATH": os.pathsep.join([str(_REPOSITORY), os.environ["PYTHONPATH"]]),
            "GRPC_VERBOSITY": "ERROR",
        }
        with open(self._folder / f"output-{index}", "ab") as errors_file:
            return subprocess.Popen(
                [sys.executable, str(_PROGRAM), self._scenario, self._folder / f"results-{index}"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                text=True,
            )

    def restart(self, index):
        self.processes[index].kill()
        self.processes[index].communicate()
        self.processes[index] = self._start(index)

    def wait(self, seconds):
        """Returns when all have ended, or one has failed, or the time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            codes = [process.poll() for process in self.processes]
            if None not in codes or any(code not in (None, 0, -signal.SIGKILL) for code in codes):
                return
            time.sleep(0.05)

    def kill(self):
        for process in self.processes:
            process.kill()

    def reap(self):
        for process in self.processes:
            process.communicate(timeout=300)

    def results(self, index):
        """Returns the finished clauses of a worker, with the errors."""
        path = self._folder / f"results-{index}"
        return dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}

    def output(self, index):
        return (self._folder / f"output-{index}").read_text(errors="replace")[-5000:]

    def check(self, clause, workers):
        for index in workers:
            results = self.results(index)
            failure = results.get(clause, f"it did not come to {clause}, but to {list(results)}")
            assert failure is None, f"task {index}: {failure}\n{self.output(index)}"


@contextlib.contextmanager
def _cluster(factory, scenario, jobs):
    cluster = Cluster(factory.mktemp(scenario), scenario, jobs)
    watchdog = threading.Timer(_DEADLINE, cluster.kill)
    watchdog.start()
    try:
        yield cluster
    finally:
        watchdog.cancel()
        cluster.kill()
        cluster.reap()


def _free_port():
    """Returns a port that no outgoing connection can take while TensorFlow is being imported."""
    while True:
        port = random.randrange(15_000, 32_000)
        if portpicker.is_port_free(port):
            return port


def _pause(process):
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    time.sleep(0.2)  # its other threads stop a moment later


# --- All workers live ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    with _cluster(tmp_path_factory, "all_live", {"worker": contract.WORKERS}) as cluster:
        cluster.wait(_DEADLINE)
        yield cluster


_OWN = [
    "private_configuration_names_the_job",
    "private_get_gives_up_after_its_timeout",
    "private_set_refuses_a_key_that_exists",
    "private_delete_takes_the_key_for_a_directory",
    "private_get_of_a_forgotten_call_is_answered_by_any_later_value",
    "private_states_are_none_while_all_live",
    "the_service_is_available_once_the_strategy_is_there",
    "a_value_that_tensorflow_would_cut_is_refused",
    "namespaces_are_separate",
    "waiting_in_short_slices_does_not_multiply_the_value",
    "a_waiter_leaves_no_thread_behind_once_its_key_is_forgotten",
]


_ALL = _OWN + [clause.__name__ for clause in contract.CLAUSES]


@pytest.mark.cluster
@pytest.mark.parametrize("clause", _ALL)
def test_clause(living, clause):
    living.check(clause, range(contract.WORKERS))


@pytest.mark.cluster
def test_no_clause_is_run_but_not_looked_at(living):
    assert list(living.results(0)) == _ALL


@pytest.mark.cluster
def test_processes_with_open_waits_end_in_good_order(living):
    assert [process.poll() for process in living.processes] == [0, 0, 0], living.output(0)


# --- Deaths ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dying(tmp_path_factory):
    with _cluster(tmp_path_factory, "deaths", {"chief": 1, "worker": 2}) as cluster:
        cluster.wait(_DEADLINE)
        yield cluster


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("clause", "survivors"),
    [
        ("numbering", [0, 1, 2]),
        ("a_dead_worker_is_reported_and_the_others_go_on", [0, 1]),
        ("a_dead_chief_is_reported_and_nobody_waits_for_it", [1]),
        ("lost_is_told", [1]),
    ],
)
def test_death(dying, clause, survivors):
    dying.check(clause, survivors)
    assert [process.poll() for process in dying.processes] == [-signal.SIGKILL, 0, -signal.SIGKILL]


@pytest.mark.cluster
def test_a_chief_that_is_stopped_or_restarted_holds_nobody_up(tmp_path_factory):
    with _cluster(tmp_path_factory, "held_up", {"worker": 2}) as cluster:
        chief, worker = cluster.processes
        assert worker.stdout.readline() == "stop\n", cluster.output(1)
        _pause(chief)
        worker.stdin.write("stopped\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "restart\n", cluster.output(1)
        cluster.restart(0)
        worker.stdin.write("restarted\n")
        worker.stdin.flush()
        worker.wait(_DEADLINE)
        cluster.check("nothing_waits_for_a_stopped_chief", [1])
        cluster.check("a_restarted_chief_is_noticed", [1])


# --- Without a cluster ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["set_config_key_value", "get_config_key_value", "delete_config_key_value",
             "get_task_states", "coordination_service", "_collective_ops_server_def"]
)  # fmt: skip
def test_the_private_interface_is_still_there(name):
    from tensorflow.python.eager import context

    assert hasattr(context.context(), name)


def test_without_a_strategy_there_is_no_service():
    from distckpt.coordination.tensorflow_service import TensorFlowService

    assert not TensorFlowService.available()
    with pytest.raises(errors.ConfigurationError, match="create the MultiWorkerMirroredStrategy"):
        TensorFlowService()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Task /job:worker/replica:0/task:2 heartbeat timeout. This indicates that the remote "
            "task has failed, got preempted, or crashed unexpectedly.",
            "heartbeat timeout",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:47867: Failed "
            "to connect to remote host: Connection refused\nAdditional GRPC error information from "
            "remote target /job:worker/replica:0/task:0 while calling …",
            "its coordination service cannot be reached: connection refused",
        ),
        (
            "failed to connect to all addresses\nAdditional GRPC error information from remote "
            "target /job:worker/replica:0/task:0 while calling …",
            "its coordination service cannot be reached: failed to connect to all addresses",
        ),
        (
            "recvmsg:Connection reset by peer\nAdditional GRPC error information",
            "its coordination service cannot be reached: connection reset by peer",
        ),
        (
            "/job:worker/replica:0/task:1 unexpectedly tried to connect with a different "
            "incarnation. It has likely restarted.",
            "unexpectedly tried to connect with a different incarnation",
        ),
        ("", "InternalError"),
    ],
)
def test_reasons_are_one_short_line(text, expected):
    import tensorflow as tf

    from distckpt.coordination import tensorflow_service

    assert tensorflow_service._reason(tf.errors.InternalError(None, None, text)) == expected
