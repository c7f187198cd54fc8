from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distckpt.core.protocol import messages as m
from distckpt.core.protocol.phases import ALL, Phase
from distckpt.core.protocol.write_plan import Entry
from distckpt.errors import Failure

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNT = st.integers(0, 2**53)
SHAPE = st.lists(COUNT, max_size=3).map(tuple)
SECONDS = st.floats(0, 1e12)
FAILURES = st.builds(Failure, st.just("SaveFailedError"), TEXT, st.none() | COUNT, TEXT)


def tuples(of):
    return st.lists(of, max_size=3).map(tuple)


FILES = tuples(st.builds(m.WrittenFile, TEXT, COUNT))
STATES = st.builds(m.WrittenState, TEXT, st.builds(m.WrittenFile, TEXT, COUNT), COUNT, FILES)
PIECES = tuples(st.builds(m.WrittenPiece, TEXT, TEXT, SHAPE, TEXT, COUNT, COUNT, COUNT, COUNT))
PHASES = tuples(st.builds(Phase, TEXT, SECONDS, SECONDS))
ENTRIES = tuples(st.builds(Entry, TEXT, TEXT, SHAPE, COUNT, st.booleans(), TEXT, st.booleans()))
KINDS = {
    "rendezvous": (st.builds(m.Rendezvous, TEXT, st.booleans()), m.rendezvous_from_json),
    "opening": (st.builds(m.Opening, TEXT, TEXT, TEXT, TEXT, TEXT), m.opening_from_json),
    "report": (
        st.builds(
            m.Report,
            COUNT,
            TEXT,
            COUNT,
            SECONDS,
            tuples(TEXT),
            FILES,
            PIECES,
            FILES,
            st.none() | tuples(COUNT),
            st.none() | STATES,
            PHASES,
        ),
        m.answer_from_json,
    ),
    "refusal": (st.builds(m.Refusal, COUNT, FAILURES, st.none() | ENTRIES), m.answer_from_json),
    "outcome": (
        st.builds(
            m.Outcome,
            st.none() | FAILURES,
            st.none() | TEXT,
            tuples(st.tuples(TEXT, SECONDS)),
            SECONDS,
        ),
        m.outcome_from_json,
    ),
    "proposal": (st.builds(m.Proposal, TEXT, TEXT, TEXT), m.proposal_from_json),
    "verdict": (
        st.builds(m.Verdict, COUNT, st.none() | FAILURES, st.booleans()),
        m.verdict_from_json,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_message_arrives_as_it_was_sent(kind, data):
    values, parse = KINDS[kind]
    message = data.draw(values)
    arrived = parse(m.to_json(message))
    assert arrived == message
    assert type(arrived) is type(message)
    assert hash(arrived) == hash(message), "a list where a tuple was"


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_message_is_one_line_of_ascii(kind, data):
    """So that it passes through any engine."""
    text = m.to_json(data.draw(KINDS[kind][0]))
    assert text.isascii()
    assert "\n" not in text
    json.loads(text)


def test_a_report_and_a_refusal_are_told_apart():
    report = m.Report(1, "h", 2, 0.0, (), (), ())
    refusal = m.Refusal(1, Failure("SaveFailedError", "x"))
    assert isinstance(m.answer_from_json(m.to_json(report)), m.Report)
    assert isinstance(m.answer_from_json(m.to_json(refusal)), m.Refusal)


def test_the_bytes_of_a_report_are_those_of_all_its_files():
    files = (m.WrittenFile("a", 3), m.WrittenFile("b", 4))
    assert m.Report(1, "h", 2, 0.0, (), files, (), (m.WrittenFile("c", 5),)).bytes == 12


def test_a_large_report_stays_small():
    """Ten thousand entries must pass through the coordination service at every save."""
    piece = m.WrittenPiece("layer-123/kernel/.ATTRIBUTES/VALUE", "float32", (3, 4), "", 0, 9, 9, 9)
    report = m.Report(1, "h", 2, 0.0, (), (), (piece,) * 10_000)
    assert len(m.to_json(report)) < 1_000_000


def test_the_phases_of_a_worker_are_few_bytes():
    """The chief has them from all of 1,024 workers at every save."""
    phases = tuple(Phase(name, 1764139577.1234, 0.123456) for name in ALL)
    short = m.to_json(m.Report(1, "h", 2, 0.0, (), (), ()))
    assert len(m.to_json(m.Report(1, "h", 2, 0.0, (), (), (), phases=phases))) < len(short) + 400
