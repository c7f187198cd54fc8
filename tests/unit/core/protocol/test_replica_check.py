from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.protocol import actions as s
from distckpt.core.protocol import replica_check
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.messages import Opening, Report, WrittenPiece, answer_from_json, to_json
from distckpt.core.protocol.replica_check import Check
from distckpt.core.protocol.write_plan import Entry, make_plan

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
ENTRIES = [
    Entry(f"layer-{n}{SUFFIX}", "float32", (64, 64 + n), 256 * (64 + n)) for n in range(6)
] + [
    Entry("graph", "string", (), 16, chief_only=True),
    Entry("step", "int64", (), 8, chief_only=True),
    Entry("total", "float32", (), 4, collective=True),
    Entry("text", "string", (), 16),
]
ALL = Check("error")


def plan(workers=3):
    return make_plan(ENTRIES, workers)


def reports(of, check, deviations=()):
    """Returns honest reports; `deviations` holds (worker, key) of what a worker has another of."""

    def crc(worker, piece):
        odd = (worker, piece.entry.key.removesuffix(SUFFIX)) in deviations
        return hash((piece.identity, worker if odd else "all")) % 2**32

    found = {}
    for worker in range(of.workers):
        pieces = tuple(
            WrittenPiece(
                p.entry.key, p.entry.dtype, p.shape, p.spec, 0, 0, p.nbytes, crc(worker, p)
            )
            for p in of.shares[worker]
        )
        copies = None
        if check.mode != "off":
            copies = tuple(crc(worker, p) for p in replica_check.copies(of, worker, check))
        found[worker] = Report(worker, "h", 1, 0.0, ("s",), (), pieces, copies=copies)
    return found


def compare(deviations, workers=3, check=ALL):
    of = plan(workers)
    return replica_check.compare(of, reports(of, check, deviations), check)


def test_what_should_be_equal_everywhere_is_compared_and_nothing_else():
    keys = {piece.entry.key for _, piece in replica_check.compared(plan(), ALL)}
    assert keys == {f"layer-{n}{SUFFIX}" for n in range(6)}


@pytest.mark.parametrize("check", [Check(), Check("off", 1, 3)])
def test_nothing_is_compared_unless_it_was_asked_for(check):
    assert replica_check.compared(plan(), check) == ()
    assert replica_check.compared(plan(1), ALL) == ()


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 100))
def test_each_piece_is_compared_once_in_so_many_saves(workers, every, first):
    of = plan(workers)
    turns = [
        replica_check.compared(of, Check("warn", every, turn))
        for turn in range(first, first + every)
    ]
    together = [found for turn in turns for found in turn]
    assert sorted(together, key=repr) == sorted(replica_check.compared(of, Check("warn")), key=repr)


def test_the_turns_have_about_as_many_bytes():
    entries = [Entry(f"v{n:03d}", "float32", (n + 1,), 4 * (n + 1)) for n in range(400)]
    of = make_plan(entries, 3)
    sizes = [
        sum(piece.nbytes for _, piece in replica_check.compared(of, Check("warn", 4, turn)))
        for turn in range(4)
    ]
    assert max(sizes) < 1.02 * min(sizes)


def test_a_worker_computes_what_others_write():
    of = plan()
    for worker in range(3):
        mine = {p.identity for p in of.shares[worker]}
        assert not mine & {p.identity for p in replica_check.copies(of, worker, ALL)}


def test_equal_copies_are_equal():
    assert compare(()) == ()


@pytest.mark.parametrize("worker", range(3))
def test_the_one_that_deviates_is_named_be_it_the_writer_or_not(worker):
    found = compare([(worker, "layer-2")])
    assert found
    assert {d.piece.entry.key for d in found} == {f"layer-2{SUFFIX}"}
    assert all(d.deviant == (worker,) for d in found)
    assert replica_check.culprit(found) == worker
    text = replica_check.explain(found, 9, "ckpt-12 (step 1200)")
    assert "in ckpt-12 (step 1200); " in text
    others = ", ".join(str(w) for w in range(3) if w != worker)
    assert "  layer-2, rows 0 to " in text or "  layer-2: " in text
    assert f": worker {worker} differs from workers {others}" in text


def test_of_two_nobody_knows_which_is_wrong():
    found = compare([(1, "layer-2")], workers=2)
    assert all(d.deviant == () for d in found)
    assert replica_check.culprit(found) is None
    assert ": worker 0 and worker 1 hold different values" in replica_check.explain(found, 9, "it")


def test_a_group_that_agrees_is_named_as_one():
    found = compare([(3, "layer-0"), (1, "layer-0"), (1, "layer-5")], workers=5)
    assert {d.deviant for d in found} == {(1,), (1, 3)}
    assert replica_check.culprit(found) is None
    text = replica_check.explain(found, 9, "it")
    assert "workers 1, 3 differ from workers 0, 2, 4" in text


def test_many_differences_and_many_workers_are_not_all_named():
    entries = [Entry(f"v{n:03d}", "float32", (4,), 16) for n in range(400)]
    of = make_plan(entries, 64)
    odd = [(w, f"v{n:03d}") for n in range(400) for w in range(0, 64, 2)]
    found = replica_check.compare(of, reports(of, ALL, odd), ALL)
    assert len(found) == 400
    text = replica_check.explain(found, 400, "it")
    assert len(text.splitlines()) == 12
    assert "and 390 more" in text
    assert len(text) < 3000


def test_a_worker_with_other_options_is_told():
    of = plan()
    for mine, theirs in ((ALL, Check()), (Check(), ALL), (ALL, Check("error", 5))):
        text = replica_check.unlike(of, reports(of, theirs)[1], mine)
        assert "worker 1" in text
        assert "same ManagerOptions" in text
        assert replica_check.unlike(of, reports(of, mine)[1], mine) is None


def test_checksums_travel():
    report = reports(plan(), ALL)[1]
    assert report.copies
    assert answer_from_json(to_json(report)) == report


# --- In the protocol


def gather(check, deviations=(), theirs=None):
    """Lets the chief hear all reports; returns it and the actions that follow."""
    of = make_plan([entry for entry in ENTRIES if not entry.collective], 3)
    chief = ChiefSave(of, check, "ckpt-12 (step 1200)")
    chief.start()
    chief.on(s.Opened(Opening("a1", "ckpt-12", "/d", of.fingerprint, "t")))
    found = reports(of, theirs or check, deviations)
    chief.on(s.Written(reports(of, check, deviations)[0]))
    for worker in (1, 2):
        actions = chief.on(s.Answered(found[worker]))
        if not isinstance(actions[0], s.AwaitAnswer):
            break
    return chief, actions


@pytest.mark.parametrize("mode", ["off", "warn", "error"])
def test_equal_copies_are_merged(mode):
    chief, actions = gather(Check(mode))
    assert isinstance(actions[0], s.Merge)
    chief.on(s.Merged())
    assert chief.on(s.Committed())[0] == s.Tell(None)


def test_an_error_saves_nothing_and_names_variable_worker_and_step():
    _, actions = gather(ALL, [(2, "layer-3")])
    assert [type(action) for action in actions] == [s.Discard, s.Tell, s.Finish]
    failure = actions[-1].failure
    assert (failure.kind, failure.worker) == ("ReplicaMismatchError", 2)
    assert "layer-3" in failure.message
    assert "worker 2 differs from workers 0, 1" in failure.message
    assert "ckpt-12 (step 1200)" in failure.message
    assert "Nothing was saved. Restart the job" in failure.message


def test_a_warning_saves_and_all_hear_it():
    chief, actions = gather(Check("warn"), [(2, "layer-3")])
    assert isinstance(actions[0], s.Merge)
    chief.on(s.Merged())
    told = chief.on(s.Committed())[0]
    assert told.failure is None
    assert "layer-3" in told.warning
    assert "The save goes on" in told.warning


def test_without_the_check_a_difference_is_not_noticed():
    _, actions = gather(Check(), [(2, "layer-3")])
    assert isinstance(actions[0], s.Merge)


def test_options_that_differ_fail_the_save():
    _, actions = gather(ALL, theirs=Check())
    assert actions[-1].failure.kind == "ConfigurationError"
    assert actions[-1].failure.worker == 1
