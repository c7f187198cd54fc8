"""Reports that are not as planned."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from distckpt.core.protocol.report_checks import unplanned

from .saves import plan, report


def change(of, **changes):
    return dataclasses.replace(
        of, pieces=(structs.replace(of.pieces[0], **changes), *of.pieces[1:])
    )


def test_an_honest_report_is_as_planned():
    for workers in (1, 2, 5):
        of = plan(workers)
        assert [unplanned(of, report(i, of)) for i in range(workers)] == [None] * workers


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"key": "foreign"}, "worker 1 wrote 'foreign', which was not its share"),
        ({"spec": "96 128 0,5:-"}, "which was not its share"),
        ({"dtype": "float16"}, "as float16"),
        ({"shape": (3, 4)}, r"as float32[3, 4]; the plan says float32["),
    ],
)
def test_a_report_that_is_not_as_planned_is_named(changes, text):
    assert text in unplanned(plan(), change(report(1), **changes))


def test_missing_and_doubled_pieces_are_counted():
    of = report(0)
    short = dataclasses.replace(of, pieces=of.pieces[:1])
    assert f"({len(of.pieces) - 1} of {len(of.pieces)} entries are missing)" in unplanned(
        plan(), short
    )
    double = dataclasses.replace(of, pieces=(*of.pieces, of.pieces[0]))
    assert "twice" in unplanned(plan(), double)


def test_what_the_chief_adds_is_accepted_from_it_alone():
    extra = structs.replace(report(0).pieces[0], key="from a registered saver")
    ours = dataclasses.replace(report(0), pieces=(*report(0).pieces, extra))
    theirs = dataclasses.replace(report(1), pieces=(*report(1).pieces, extra))
    assert unplanned(plan(), ours) is None
    assert "not its share" in unplanned(plan(), theirs)
