from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from distckpt import errors
from distckpt.coordination import watched_key as module
from distckpt.coordination.crew import Crew
from distckpt.coordination.in_process import InProcess
from distckpt.coordination.watches import Forgotten, Watches

from ..kit.eventually import eventually
from ..kit.refusing import Refusing

SOON = 5.0


class Engine:
    """A store that can only block on one key, like TensorFlow's, and counts the calls."""

    def __init__(self):
        self.store = InProcess.single()
        self.asked = []
        self.open = 0
        self.delays = {}
        self._lock = threading.Lock()

    def ask(self, key, seconds):
        with self._lock:
            self.asked.append(key)
            self.open += 1
        try:
            time.sleep(self.delays.get(key, 0))
            found = self.store.fetch([key], seconds)
            if found is None:
                return None
            if found[1] == "forgotten":
                raise Forgotten
            if found[1] == "broken":
                raise errors.WorkerLostError("the engine is gone")
            return found[1]
        finally:
            with self._lock:
                self.open -= 1


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    for key in engine.asked:
        engine.store.publish(key, "forgotten")  # lets every thread end


@pytest.fixture
def watches(engine):
    return Watches(engine.ask, Crew(0), 4)


def test_a_published_key_is_found(engine, watches):
    engine.store.publish("b", "value")
    assert watches.fetch(["a", "b"], SOON) == ("b", "value")


def test_a_key_published_while_waiting_is_found_at_once(engine, watches):
    threading.Timer(0.3, engine.store.publish, ["b", "value"]).start()
    began = time.monotonic()
    assert watches.fetch(["a", "b"], 30) == ("b", "value")
    assert time.monotonic() - began < SOON


def test_many_fetches_of_an_absent_key_make_one_call(engine, watches, monkeypatch):
    monkeypatch.setattr(module, "FIRST_CALL", 60.0)
    for _ in range(20):
        assert watches.fetch(["a"], 0.01) is None
    assert engine.asked == ["a"]


def test_fetches_of_many_threads_share_one_call_and_all_get_the_value(engine, watches):
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(watches.fetch, ["a"], SOON) for _ in range(8)]
        eventually(lambda: engine.open == 1)
        time.sleep(0.1)
        assert engine.asked == ["a"]
        engine.store.publish("a", "value")
        assert [future.result() for future in futures] == [("a", "value")] * 8


def test_a_first_look_waits_for_the_answer_and_later_looks_do_not(watches):
    began = time.monotonic()
    assert watches.fetch(["a"], 0) is None
    assert 0.1 < time.monotonic() - began < 1
    began = time.monotonic()
    assert watches.fetch(["a"], 0) is None
    assert time.monotonic() - began < 0.1


def test_the_first_key_is_preferred_even_if_its_answer_comes_a_little_later(engine, watches):
    engine.delays["a"] = 0.005
    for key in "ab":
        engine.store.publish(key, "value")
    assert watches.fetch(["a", "b"], SOON) == ("a", "value")


def test_the_first_key_is_preferred_even_if_its_thread_begins_late(engine):
    """On a busy machine, a thread may begin long after it was started."""

    class Busy(Crew):
        def do(self, work, *rest):
            if not engine.asked and not late:
                late.append(threading.Timer(0.1, work))
                late[0].start()
                return True
            return super().do(work, *rest)

    late = []
    for key in "ab":
        engine.store.publish(key, "value")
    assert Watches(engine.ask, Busy(0), 4).fetch(["a", "b"], SOON) == ("a", "value")
    assert engine.asked == ["b", "a"]


def test_a_slow_first_key_does_not_hold_back_the_second_for_long(engine, watches):
    engine.delays["a"] = 2.0
    engine.store.publish("b", "value")
    began = time.monotonic()
    assert watches.fetch(["a", "b"], SOON) == ("b", "value")
    assert time.monotonic() - began < 1.0


def test_an_answer_that_nobody_waited_for_is_kept_for_the_next_fetch(engine, watches):
    assert watches.fetch(["a"], 0) is None
    engine.store.publish("a", "value")
    eventually(lambda: engine.open == 0)
    engine.store.forget(["a"])
    assert watches.fetch(["a"], 0) == ("a", "value")
    assert engine.asked == ["a"]


def test_a_dropped_answer_is_asked_for_again(engine, watches):
    assert watches.fetch(["a"], 0) is None
    engine.store.publish("a", "value")
    eventually(lambda: engine.open == 0)
    time.sleep(0.05)
    engine.store.forget(["a"])
    watches.drop(["a", "unknown"])
    assert watches.fetch(["a"], 0) is None
    assert engine.asked == ["a", "a"]


def test_an_error_is_raised_by_the_fetch_and_the_next_one_tries_again(engine, watches):
    engine.store.publish("a", "broken")
    with pytest.raises(errors.WorkerLostError, match="the engine is gone"):
        watches.fetch(["a"], SOON)
    engine.store.forget(["a"])
    engine.store.publish("a", "value")
    assert watches.fetch(["a"], SOON) == ("a", "value")


def test_an_error_of_the_program_does_not_leave_the_fetch_waiting():
    def ask(key, seconds):
        raise TypeError("the interface has changed")

    with pytest.raises(TypeError, match="the interface has changed"):
        Watches(ask, Crew(0), 4).fetch(["a"], 30)


def test_a_forgotten_key_ends_its_call(engine, watches):
    assert watches.fetch(["a"], 0) is None
    engine.store.publish("a", "forgotten")
    eventually(lambda: engine.open == 0)
    assert engine.asked == ["a"]


def test_a_fetch_goes_on_when_its_key_is_forgotten_and_published_anew(engine, watches):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(watches.fetch, ["a"], 30)
        eventually(lambda: engine.open == 1)
        engine.store.publish("a", "forgotten")
        time.sleep(0.02)
        engine.store.forget(["a"])
        engine.store.publish("a", "value")
        assert future.result(SOON) == ("a", "value")


def test_a_call_that_runs_out_is_renewed_while_somebody_waits(engine, watches, monkeypatch):
    monkeypatch.setattr(module, "CALL", 0.05)
    threading.Timer(0.5, engine.store.publish, ["a", "value"]).start()
    assert watches.fetch(["a"], SOON) == ("a", "value")
    assert len(engine.asked) > 3


def test_a_call_that_runs_out_is_not_renewed_when_nobody_waits(engine, watches, monkeypatch):
    monkeypatch.setattr(module, "CALL", 0.05)
    assert watches.fetch(["a"], 0.1) is None
    time.sleep(0.3)
    assert engine.open == 0
    count = len(engine.asked)
    time.sleep(0.2)
    assert len(engine.asked) == count


def test_answers_that_nobody_fetches_are_dropped_in_the_end(engine, watches, monkeypatch):
    monkeypatch.setattr(module, "CALL", 0.05)
    assert watches.fetch(["a"], 0) is None
    engine.store.publish("a", "value")
    time.sleep(0.3)
    watches.fetch(["b"], 0)
    assert "a" not in watches._watches


# --- Without threads


@pytest.fixture
def alone(engine, monkeypatch):
    Refusing(monkeypatch)
    return Watches(engine.ask, Crew(0), 4)


def test_without_threads_a_published_key_is_found(engine, alone):
    engine.store.publish("b", "value")
    assert alone.fetch(["a", "b"], 0) == ("b", "value")


def test_without_threads_a_key_published_while_waiting_is_found_soon(engine, alone):
    threading.Timer(0.3, engine.store.publish, ["b", "value"]).start()
    began = time.monotonic()
    assert alone.fetch(["a", "b"], 30) == ("b", "value")
    assert time.monotonic() - began < SOON


def test_without_threads_a_fetch_ends_at_its_deadline_and_no_call_stays_open(engine, alone):
    began = time.monotonic()
    assert alone.fetch(["a", "b"], 0.5) is None
    assert 0.5 <= time.monotonic() - began < SOON
    assert engine.open == 0


def test_without_threads_an_error_is_raised_and_a_forgotten_key_is_none(engine, alone):
    engine.store.publish("a", "forgotten")
    assert alone.fetch(["a"], 0.1) is None
    engine.store.publish("b", "broken")
    with pytest.raises(errors.WorkerLostError, match="the engine is gone"):
        alone.fetch(["b"], SOON)


def test_a_watch_that_got_no_thread_gets_one_later(engine, watches, monkeypatch):
    monkeypatch.setattr(module, "FIRST_CALL", 60.0)
    with monkeypatch.context() as limited:
        Refusing(limited)
        assert watches.fetch(["a"], 0) is None
    threading.Timer(0.3, engine.store.publish, ["a", "value"]).start()
    asked = len(engine.asked)
    assert watches.fetch(["a"], 30) == ("a", "value")
    assert len(engine.asked) == asked + 1


def test_closing_ends_a_fetch(engine, watches):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(watches.fetch, ["a"], 30)
        eventually(lambda: engine.open == 1)
        watches.close()
        assert future.result(SOON) is None


# --- More keys than threads


def test_a_key_that_no_thread_has_taken_is_found(engine, watches):
    keys = [str(n) for n in range(10)]
    threading.Timer(0.3, engine.store.publish, ["9", "value"]).start()
    assert watches.fetch(keys, SOON) == ("9", "value")
    assert watches.fetch_all(["x", *keys], SOON) == [("9", "value")]


def test_all_that_are_there_are_found_in_one_look(engine, watches):
    for key in "aceg":
        engine.store.publish(key, "value")
    assert watches.fetch_all(list("xyzabcdefgh"), 0) == [(key, "value") for key in "aceg"]


def test_a_thread_takes_the_next_key_when_its_own_is_published(engine, watches):
    keys = [str(n) for n in range(40)]
    for key in keys:
        engine.store.publish(key, "value")
    found = []
    while len(found) < len(keys):
        found += [key for key, _ in watches.fetch_all([k for k in keys if k not in found], SOON)]
    assert sorted(engine.asked) == sorted(keys)


def test_a_thread_leaves_a_key_that_nobody_waits_for_to_one_that_is_waited_for(engine):
    watches = Watches(engine.ask, Crew(1), 1)
    assert watches.fetch(["old"], 0) is None
    watches.stop_waiting(["old"])
    threading.Timer(1.0, engine.store.publish, ["b", "value"]).start()
    assert watches.fetch(["a", "b"], SOON) == ("b", "value")
    assert engine.asked.count("old") == 1
    assert watches._watches["a"].taken


def test_the_first_key_keeps_its_thread_between_two_fetches_of_many(engine, monkeypatch):
    monkeypatch.setattr(module, "FIRST_CALL", 0.05)
    watches = Watches(engine.ask, Crew(1), 1)
    for _ in range(10):
        assert watches.fetch_all(["first", *map(str, range(9))], 0.01) == []
        time.sleep(0.1)
        assert watches._watches["first"].taken


def test_an_absent_key_that_no_thread_has_is_asked_for_at_intervals_that_double(engine):
    watches = Watches(engine.ask, Crew(1), 1)
    assert watches.fetch(["first", "second"], 5.0) is None
    assert engine.asked.count("second") <= 5  # at 0.5, 1, 2, 4 s
