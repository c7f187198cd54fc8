"""Moments: which of two is earlier, and what is said when they differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.protocol import call_matching, messages
from distckpt.core.protocol.call_matching import Move, on_restore, on_save
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import Moment, Relation, differ
from distckpt.errors import Failure


def at(step=None, generation=0, **more):
    counters = {} if step is None else {"step": step}
    return Moment.of(generation, counters | more)


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        (at(5), at(5), Relation.SAME),
        (at(5), at(10), Relation.EARLIER),
        (at(10), at(5), Relation.LATER),
        (at(), at(), Relation.SAME),
        (at(5), at(), Relation.UNRELATED),
        (at(5, generation=1), at(5), Relation.LATER),
        (at(90), at(5, generation=1), Relation.EARLIER),
        (at(5, generation=-1), at(5, generation=1), Relation.UNRELATED),
        (at(5), at(5, generation=-1), Relation.UNRELATED),
        (at(5, generation=-1), at(5, generation=-1), Relation.SAME),
        (at(5, epoch=1), at(6, epoch=1), Relation.EARLIER),
        (at(90, epoch=1), at(1, epoch=2), Relation.UNRELATED),
        (at(5, other=1), at(5, another=1), Relation.UNRELATED),
    ],
)
def test_relations(one, other, relation):
    assert one.relation(other) is relation


MOMENTS = st.builds(
    Moment.of,
    st.integers(0, 2),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
)
MIRROR = {
    Relation.SAME: Relation.SAME,
    Relation.UNRELATED: Relation.UNRELATED,
    Relation.EARLIER: Relation.LATER,
    Relation.LATER: Relation.EARLIER,
}


@given(MOMENTS, MOMENTS)
def test_what_is_earlier_one_way_is_later_the_other(one, other):
    assert other.relation(one) is MIRROR[one.relation(other)]
    assert (one == other) is (one.relation(other) is Relation.SAME)


def test_both_moments_are_told():
    text = differ("worker 1", at(15), at(20, generation=3))
    assert "worker 1 is at step 15 and the chief at step 20, after a restore" in text


def test_moments_that_read_alike_are_told_apart():
    text = differ("worker 1", at(15, generation=2), at(15, generation=3))
    assert "(call 2)" in text
    assert "(call 3)" in text


@given(MOMENTS)
def test_entries_travel(moment):
    for call in (
        Call("save", moment, save=True, name="ckpt-1", counter=3, step=5, rest_until=9.5),
        Call("restore", moment),
        Call("save", moment, Failure("SaveFailedError", "x", 0), late=True),
    ):
        assert messages.call_from_json(messages.to_json(call)) == call


# --- What a worker does about the next entry ----------------------------------------------------

HERE, BEFORE, AFTER, ELSEWHERE = at(10), at(5), at(20), at(20, other=1)


def save(moment, **how):
    return Call("save", moment, **{"save": True, **how})


def no(moment):
    return Call("save", moment, save=False)


FAILED = Failure("SaveFailedError", "x", 0)


@pytest.mark.parametrize(
    ("call", "withdrawn", "over", "move"),
    [
        (save(HERE), [], False, Move.JOIN),
        (no(HERE), [], False, Move.JOIN),
        (save(HERE, failure=FAILED), [], False, Move.JOIN),
        (save(BEFORE), [], False, Move.REFUSE),
        (no(BEFORE), [], False, Move.PASS),
        (save(BEFORE, failure=FAILED), [], False, Move.PASS),
        (save(AFTER), [], False, Move.AHEAD),
        (no(AFTER), [], False, Move.AHEAD),
        (save(ELSEWHERE), [], False, Move.MISMATCH),
        (save(ELSEWHERE), [], True, Move.PASS),
        (save(HERE), [HERE], False, Move.PASS),
        (save(BEFORE), [BEFORE], False, Move.PASS),
        (save(HERE), [BEFORE], False, Move.JOIN),
        (save(HERE), [BEFORE, HERE], False, Move.PASS),
        (Call("restore", HERE), [], False, Move.AHEAD),
        (Call("restore", HERE), [], True, Move.PASS),
    ],
)
def test_moves_of_a_worker_that_saves(call, withdrawn, over, move):
    assert on_save(call, HERE, withdrawn, lambda: over) is move


@pytest.mark.parametrize(
    ("call", "move"),
    [
        (Call("restore", HERE), Move.JOIN),
        (save(HERE), Move.REFUSE),
        (no(HERE), Move.PASS),
        (save(HERE, failure=FAILED), Move.PASS),
    ],
)
def test_moves_of_a_worker_that_restores(call, move):
    assert on_restore(call) is move


def test_an_error_of_a_chief_that_cannot_say_at_which_step_it_is_is_heard():
    unknown = save(at(), failure=FAILED)
    assert on_save(unknown, HERE, [], lambda: False) is Move.JOIN
    assert on_save(unknown, HERE, [HERE], lambda: False) is Move.PASS
    assert on_save(unknown, at(1, generation=1), [], lambda: False) is Move.PASS


def test_who_has_nothing_to_count_by_takes_part_in_what_is_next():
    assert on_save(save(at()), at(), [], lambda: False) is Move.JOIN
    assert on_save(save(at()), at(), [at()], lambda: False) is Move.PASS
    assert call_matching.needs_workers(save(at()))
