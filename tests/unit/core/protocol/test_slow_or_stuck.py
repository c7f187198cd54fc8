from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.protocol.messages import Progress
from distckpt.core.protocol.slow_or_stuck import Patience, Standing, advise, explain, what

PATIENCE = Patience(600.0, 3.0)


def writing(done, total=8 << 20):
    return Progress(1, "node-7", 41, "writing", done, total)


def test_what_follows_from_a_deadline():
    assert (PATIENCE.limit, PATIENCE.interval, PATIENCE.stall) == (1800.0, 5.0, 60.0)
    short = Patience(4.0)
    assert (short.limit, short.interval, short.stall) == (4.0, 0.1, 5.0)


@given(st.floats(1e-3, 1e6), st.floats(1.0, 10.0))
def test_a_worker_may_speak_several_times_before_it_counts_as_stuck(seconds, factor):
    patience = Patience(seconds, factor)
    assert patience.limit >= patience.seconds
    assert patience.stall >= 4 * patience.interval * 0.999


@pytest.mark.parametrize(
    ("standing", "text"),
    [
        (Standing("worker 1"), "worker 1 never came"),
        (
            Standing("worker 1", joined=False),
            "worker 1 never came, and has not been seen in this job at all: has it been started?",
        ),
        (
            Standing("worker 1", came=True),
            "worker 1 came, but neither finished its part nor reported progress",
        ),
        (
            Standing("worker 1", came=True, progress=writing(3 << 20), ago=2.2),
            "worker 1 (node-7, pid 41) is slow: writing, 3.0 of 8.0 MiB, last progress 2 s ago",
        ),
        (
            Standing("worker 1", came=True, progress=writing(3 << 20), ago=95.0),
            "worker 1 (node-7, pid 41) is stuck: writing, 3.0 of 8.0 MiB, last progress 95 s ago",
        ),
    ],
)
def test_what_is_said_of_a_worker(standing, text):
    assert standing.describe(PATIENCE) == text


def test_only_progress_makes_it_worth_while_to_wait():
    assert Standing("w", came=True, progress=writing(1), ago=59.9).is_slow(PATIENCE)
    assert not Standing("w", came=True, progress=writing(1), ago=60.0).is_slow(PATIENCE)
    assert not Standing("w", came=True).is_slow(PATIENCE)


def test_bytes_are_told_if_they_are_counted_and_never_more_than_all():
    assert what(Progress(1, "h", 1, "merging")) == "merging"
    assert what(writing(9 << 20)) == "writing, 8.0 of 8.0 MiB"  # the index is no tensor


def test_all_are_spoken_of_but_not_one_by_one_if_there_are_hundreds():
    missing = [Standing(f"worker {n}") for n in range(100)]
    text = explain(missing, [f"worker {n}" for n in range(100, 300)], PATIENCE)
    assert text.count("never came") == 8
    assert "and 92 more have not done their part" in text
    assert "worker 107 and 192 more have done their part" in text
    assert explain(missing[:2], [], PATIENCE) == "worker 0 never came; worker 1 never came"


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (["worker 1"], "worker 1 has done its part"),
        (["chief", "worker 1"], "chief and worker 1 have done their part"),
        (["w0", "w1", "w2"], "w0, w1 and w2 have done their part"),
        ([f"w{n}" for n in range(8)], "w0, w1, w2, w3, w4, w5, w6 and w7 have done their part"),
        (
            [f"w{n}" for n in range(9)],
            "w0, w1, w2, w3, w4, w5, w6, w7 and 1 more have done their part",
        ),
    ],
)
def test_those_who_have_done_their_part_are_named(done, text):
    assert explain([Standing("worker 9")], done, PATIENCE) == f"worker 9 never came; {text}"


def test_the_advice_fits_the_trouble():
    never, stuck = Standing("a"), Standing("b", came=True, progress=writing(1), ago=90.0)
    slow = Standing("c", came=True, progress=writing(1), ago=1.0)
    assert "same point of the program" in advise([never], PATIENCE)
    assert "py-spy" in advise([stuck], PATIENCE)
    assert "py-spy" not in advise([never], PATIENCE)
    assert "same point" not in advise([stuck, slow], PATIENCE)
    for standing in (never, stuck, slow):
        assert "raise the deadline in distckpt.ManagerOptions" in advise([standing], PATIENCE)
