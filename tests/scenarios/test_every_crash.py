"""One crash at every point of a save, and any mixture of crashes, deadlines and delays.

What must hold, however it went:

1. Nobody waits forever: when the deadlines have passed, every survivor has finished.
2. A path is returned only if the commit happened.
3. An error other than `CommitUnknownError` says "not committed", and that is true.
4. If nobody gave up by itself, every error names the worker that died.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core.protocol.write_plan import make_plan

from .wording import title
from .world import COLLECTIVE, ENTRIES, World

WORKERS = 3


def world(*, collective=False, survives=False, workers=WORKERS):
    entries = (*ENTRIES, COLLECTIVE) if collective else ENTRIES
    return World([make_plan(entries, workers)] * workers, store_survives=survives)


def sequence(index, collective):
    """Returns how many actions an actor performs when nothing goes wrong."""
    calm = world(collective=collective)
    calm.run()
    return len(calm.actors[index].performed)


def points():
    for collective in (False, True):
        for index in range(WORKERS):
            for position in range(sequence(index, collective)):
                for after in (False, True):
                    for survives in (False, True):
                        yield collective, index, position, after, survives


def crash_at(job, index, position, after):
    """Lets actor `index` die before or after its action number `position`."""
    victim = job.actors[index]
    while len(victim.performed) < position:
        assert job.turn(job.actors), "nobody can go on"
    if after:
        while len(victim.performed) == position:
            assert job.turn(job.actors), "nobody can go on"
    job.crash(victim)


def check(job):
    for actor in job.actors:
        if actor.dead:
            continue
        assert actor.finished is not None, f"{title(actor.index)} waits for ever\n" + log(job)
        failure = actor.finished.failure
        if failure is None:
            assert job.committed, log(job)
        elif failure.kind != "CommitUnknownError":
            assert not job.committed, f"{title(actor.index)} says {failure}\n" + log(job)


def log(job):
    return "\n".join(job.log + job.standing())


@pytest.mark.parametrize(("collective", "index", "position", "after", "survives"), list(points()))
def test_a_crash_anywhere_ends_well_for_the_others(collective, index, position, after, survives):
    job = world(collective=collective, survives=survives)
    crash_at(job, index, position, after)
    job.run()  # without any deadline passing: a death is noticed at once
    check(job)
    for actor in job.actors:
        if not actor.dead and actor.finished.failure is not None:
            assert f"{title(index)} died" in actor.finished.failure.message, log(job)


def test_a_crash_point_is_where_it_should_be():
    job = world()
    crash_at(job, 0, 0, after=False)
    assert job.actors[0].performed == []
    job = world()
    crash_at(job, 1, 2, after=True)
    assert len(job.actors[1].performed) == 3


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["step"] * 12 + ["expire", "expire", "crash", "hold", "release"]),
        st.integers(0, WORKERS - 1),
    ),
    max_size=60,
)


@settings(max_examples=600, deadline=None)
@given(MOVES, st.booleans(), st.booleans())
def test_any_interleaving_ends_well(moves, collective, survives):
    job = world(collective=collective, survives=survives)
    for move, index in moves:
        actor = job.actors[index]
        if move == "step":
            job.step(actor)
        elif move == "expire":
            job.expire(actor)
        elif move == "crash" and sum(a.dead for a in job.actors) < 2:
            job.crash(actor)
        elif move in ("hold", "release"):
            actor.held = move == "hold"
    for actor in job.actors:
        actor.held = False
    job.run()
    while job.expire_all():
        job.run()
    check(job)


FAULTS = ["Open", "Write", "Merge", "Commit"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(FAULTS)), min_size=1),
    st.permutations(range(WORKERS)),
    st.integers(1, 5),
)
def test_a_failure_anywhere_reaches_all_with_the_same_text(faults, order, workers):
    from distckpt.errors import Failure

    job = world(workers=workers)
    for index, action in faults:
        if index < workers:
            failure = Failure("StorageFullError", f"{action} on {index}", index)
            job.actors[index].faults[action] = failure
    actors = [job.actors[i] for i in order if i < workers]
    job.run(actors + job.actors[3:])
    check(job)
    ends = {actor.finished.failure for actor in job.actors}
    assert len(ends) == 1, log(job)
