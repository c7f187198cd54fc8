"""One worker of a real TensorFlow cluster that runs a scenario of `test_tensorflow_service`.

Usage: tensorflow_worker.py SCENARIO RESULTS, with TF_CONFIG set. Each finished clause is one line
of JSON, [name, text of the error or null], in the file RESULTS.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from distckpt import errors
from distckpt.coordination.tensorflow_service import TensorFlowService
from distckpt.testing import coordinator_clauses as contract
from tests.unit.kit.tf_differences import TELLS_WHY_UNREACHABLE

# --- Clauses that only this adapter has -----------------------------------------------------------


def private_get_gives_up_after_its_timeout(me, key):
    began = time.monotonic()
    with pytest.raises(tf.errors.DeadlineExceededError):
        _context().get_config_key_value(f"{key}-never", 50)
    assert 0.04 < time.monotonic() - began < contract.SOON


def private_set_refuses_a_key_that_exists(me, key):
    _context().set_config_key_value(f"{key}-{me.index}", "first")
    with pytest.raises(tf.errors.AlreadyExistsError):
        _context().set_config_key_value(f"{key}-{me.index}", "2")
    assert _context().get_config_key_value(f"{key}-{me.index}", 1000) == "first"


def private_delete_takes_the_key_for_a_directory(me, key):
    name = f"{key}-{me.index}"
    for suffix in ("", "/below", "-beside"):
        _context().set_config_key_value(name + suffix, "value")
    _context().delete_config_key_value(name)
    with pytest.raises(tf.errors.DeadlineExceededError):
        _context().get_config_key_value(name, 20)
    with pytest.raises(tf.errors.DeadlineExceededError):
        _context().get_config_key_value(f"{name}/below", 20)
    assert _context().get_config_key_value(f"{name}-beside", 1000) == "value"


def private_get_of_a_forgotten_call_is_answered_by_any_later_value(me, key):
    """A deleted key still has its waiters: the adapter relies on it to release them."""
    answers = []
    name = f"{key}-{me.index}"
    waiter = threading.Thread(
        target=lambda: answers.append(_context().get_config_key_value(name, 20_000))
    )
    waiter.start()
    time.sleep(0.2)
    _context().delete_config_key_value(name)
    assert answers == []
    _context().set_config_key_value(name, "released")
    waiter.join(contract.SOON)
    assert answers == ["released"]


def private_states_are_none_while_all_live(me, key):
    assert _context().get_task_states([("worker", contract.WORKERS)]) == [None] * contract.WORKERS


def private_configuration_names_the_job(me, key):
    service = _context().coordination_service
    assert service.service_type == "standalone"
    assert service.service_leader == "/job:worker/replica:0/task:0"
    jobs = [(job.name, job.num_tasks) for job in service.coordinated_job_list]
    assert jobs == [("worker", contract.WORKERS)]
    server = _context()._collective_ops_server_def
    assert (server.job_name, server.task_index) == ("worker", me.index)


def the_service_is_available_once_the_strategy_is_there(me, key):
    assert TensorFlowService.available()


def a_value_that_tensorflow_would_cut_is_refused(me, key):
    with pytest.raises(ValueError, match="NUL"):
        me.publish(f"{key}/a", "cut\0off")
    assert me.fetch([f"{key}/a"], 0) is None


def namespaces_are_separate(me, key):
    other = TensorFlowService("other")
    me.publish(f"{key}/{me.index}", "mine")
    other.publish(f"{key}/{me.index}", "the other's")
    assert contract.get(me, f"{key}/{me.index}") == "mine"
    assert contract.get(other, f"{key}/{me.index}") == "the other's"


def waiting_in_short_slices_does_not_multiply_the_value(me, key):
    """Each call that is given up would be sent the value in the end: here 300 times 1 MB."""
    contract.meet(me, f"{key}/start")
    if me.index == 1:
        for _ in range(300):
            me.fetch([f"{key}/a"], 0.01)
    contract.meet(me, f"{key}/looked")
    before = _loopback_bytes()
    me.publish(f"{key}/a", "x" * 1_000_000) if me.is_chief else None
    assert len(contract.get(me, f"{key}/a")) == 1_000_000
    contract.meet(me, f"{key}/got")
    assert _loopback_bytes() - before < 100_000_000


def a_waiter_leaves_no_thread_behind_once_its_key_is_forgotten(me, key):
    assert me.fetch([f"{key}/a"], 0.1) is None
    assert _waiting_threads(f"{key}:a") == 1
    contract.meet(me, f"{key}/waited")
    if me.is_chief:
        me.forget([f"{key}/a"])
    deadline = time.monotonic() + contract.SOON
    while _waiting_threads(f"{key}:a"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


OWN_CLAUSES = (
    private_configuration_names_the_job,
    private_get_gives_up_after_its_timeout,
    private_set_refuses_a_key_that_exists,
    private_delete_takes_the_key_for_a_directory,
    private_get_of_a_forgotten_call_is_answered_by_any_later_value,
    private_states_are_none_while_all_live,
    the_service_is_available_once_the_strategy_is_there,
    a_value_that_tensorflow_would_cut_is_refused,
    namespaces_are_separate,
    waiting_in_short_slices_does_not_multiply_the_value,
    a_waiter_leaves_no_thread_behind_once_its_key_is_forgotten,
)


# --- Scenarios --------------------------------------------------------------------------------


def all_live(me, record):
    for clause in (*OWN_CLAUSES, *contract.CLAUSES):
        record(clause, lambda clause=clause: clause(me, clause.__name__))
    _leave_together(me)


def deaths(me, record):
    """First the last worker dies, then the chief."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def numbering():
        assert [me.name(n) for n in range(me.count)] == ["chief", "worker 0", "worker 1"]
        contract.meet(me, "numbering")

    record(numbering, numbering)
    for clause in contract.DEATH_CLAUSES:
        record(clause, lambda clause=clause: clause(me, clause.__name__, die))
    record(lost_is_told, lambda: lost_is_told(me))
    os._exit(0)  # TensorFlow would wait for the chief


def lost_is_told(me):
    began = time.monotonic()
    lost = me.lost()
    assert time.monotonic() - began < 1.0
    why = "connection refused" if TELLS_WHY_UNREACHABLE else "failed to connect to all addresses"
    assert lost[0] == f"its coordination service cannot be reached: {why}", lost
    with pytest.raises(errors.WorkerLostError) as caught:
        me.publish("a", "value")
    assert str(caught.value) == f"chief is lost: {lost[0]}"


def held_up(me, record):
    """The test stops the chief, lets it go on, kills it and starts it anew."""
    if me.is_chief:
        me.publish("started", "")
        time.sleep(120)
    contract.get(me, "started")
    record(nothing_waits_for_a_stopped_chief, lambda: nothing_waits_for_a_stopped_chief(me))
    record(a_restarted_chief_is_noticed, lambda: a_restarted_chief_is_noticed(me))
    os._exit(0)


def nothing_waits_for_a_stopped_chief(me):
    print("stop", flush=True)
    assert sys.stdin.readline() == "stopped\n"
    began = time.monotonic()
    with pytest.raises(errors.WorkerLostError):
        me.publish("a", "value")
    assert 5 < time.monotonic() - began < 20
    for call in (me.lost, lambda: me.fetch(["never"], 0.1), lambda: me.forget(["a"])):
        began = time.monotonic()
        call()
        assert time.monotonic() - began < contract.SOON
    reason = me.lost()[0]
    assert reason.startswith("its coordination service has not answered for "), reason
    contract.assert_readable(reason)


def a_restarted_chief_is_noticed(me):
    print("restart", flush=True)
    assert sys.stdin.readline() == "restarted\n"
    deadline = time.monotonic() + contract.PATIENCE
    while "restarted" not in me.lost().get(0, ""):
        assert time.monotonic() < deadline, me.lost()
        time.sleep(0.2)


# --- Helpers ------------------------------------------------------------------------------------


def _context():
    return tf_context.context()


def _loopback_bytes():
    with open("/proc/net/dev") as file:
        return next(int(line.split()[1]) for line in file if line.split()[0] == "lo:")


def _waiting_threads(key):
    return sum(thread.name.endswith(key) for thread in threading.enumerate())


def _leave_together(me):
    """The chief goes last, for the store goes with it."""
    me.publish(f"end/{me.index}", "")
    if me.is_chief:
        for worker in range(me.count):
            contract.get(me, f"end/{worker}")


def main():
    scenario, path = sys.argv[1:]
    assert not TensorFlowService.available()
    assert tf_context.context_safe() is None or not tf_context.context_safe()._context_handle
    tf.distribute.MultiWorkerMirroredStrategy()
    me = TensorFlowService()

    def record(named, run):
        failure = None
        try:
            run()
        except BaseException:
            failure = traceback.format_exc()
        with open(path, "a") as file:
            file.write(json.dumps([named.__name__, failure]) + "\n")

    globals()[scenario](me, record)


if __name__ == "__main__":
    main()
