"""What the workers tell each other before their inputs are used, with threads as workers."""

from __future__ import annotations

from distckpt.coordination.in_process import InProcessJob
from distckpt.data.agreement import make_together, next_key
from distckpt.errors import ConfigurationError, DeadlineExceededError, WorkerLostError
from distckpt.testing.threads import run_in_threads


def together(makes, *, deadline=30.0, job=None, kinds=None):
    """Runs all; returns what each worker made, or its error. A None never comes."""
    job = job or InProcessJob(len(makes))
    results = {}

    def run(worker):
        try:
            kind = kinds[worker] if kinds else "WorkerInput"
            results[worker] = make_together(
                kind, makes[worker], job.coordinator(worker), "input-1", deadline
            )
        except Exception as error:
            results[worker] = error

    run_in_threads(run, [worker for worker, make in enumerate(makes) if make is not None], 60)
    return results


def making(**facts):
    return lambda: ("made", facts)


def failing():
    raise ValueError("no such file")


def test_what_is_alike_on_all_workers_is_made():
    assert together([making(size=3)] * 3) == dict.fromkeys(range(3), "made")


def test_a_difference_is_named_on_all_workers():
    results = together([making(size=3, seed=1), making(size=4, seed=1)])
    texts = {worker: str(error) for worker, error in results.items()}
    assert all(isinstance(error, ConfigurationError) for error in results.values())
    say = "WorkerInput: size must be the same on all workers, but is {} on worker {} and {} on "
    say += "worker {}."
    assert texts == {0: say.format(3, 0, 4, 1), 1: say.format(4, 1, 3, 0)}


def test_other_inputs_are_named():
    results = together([making(), making()], kinds=["WorkerInput", "IndexedInput"])
    assert "worker 0 makes WorkerInput, but worker 1 makes IndexedInput" in str(results[0])


def test_a_failure_on_one_worker_fails_all():
    results = together([making(), failing, making()])
    assert isinstance(results[1], ValueError)
    for worker in (0, 2):
        assert isinstance(results[worker], ConfigurationError)
        assert "WorkerInput failed on worker 1: ValueError: no such file" in str(results[worker])


def test_a_failure_is_heard_of_even_while_another_worker_is_missing():
    results = together([making(), None, failing])
    assert "failed on worker 2" in str(results[0])


def test_who_never_comes_is_named():
    results = together([making(), None, making(), None], deadline=0.5)
    for worker in (0, 2):
        assert isinstance(results[worker], DeadlineExceededError)
        assert "these workers have not made their WorkerInput: worker 1, worker 3" in str(
            results[worker]
        )


def test_who_has_died_is_named_before_the_deadline():
    job = InProcessJob(2)
    job.kill(1, "it was shot")
    results = together([making(), None], job=job)
    assert isinstance(results[0], WorkerLostError)
    assert "worker 1 died before it made its WorkerInput: it was shot" in str(results[0])


def test_nobody_asks_who_else_is_dead_while_the_chief_is_missing(monkeypatch):
    """With TensorFlow's service, that question holds up the whole process if the chief hangs."""
    job = InProcessJob(3)
    asked = []
    kind = type(job.coordinator(1))
    monkeypatch.setattr(kind, "lost", lambda self: asked.append(1) or {})
    monkeypatch.setattr(kind, "chief_lost", lambda self: None)
    results = together([None, making(), making()], job=job, deadline=1.5)
    assert not asked
    assert "worker 0" in str(results[1])
    monkeypatch.setattr(kind, "chief_lost", lambda self: "it was shot")
    results = together([None, making(), making()], job=job)
    assert "worker 0 died before it made its WorkerInput: it was shot" in str(results[1])


def test_each_input_of_a_program_has_a_key_of_its_own():
    assert next_key() != next_key()


def test_a_worker_alone_waits_for_nobody():
    assert together([making(size=3)]) == {0: "made"}
