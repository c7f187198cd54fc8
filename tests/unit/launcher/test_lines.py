from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.launcher.output.lines import LONGEST_LINE, LineAssembler


def assemble(*chunks: bytes) -> list[bytes]:
    lines = LineAssembler()
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.flush()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a", b"b\nc", b"\n"], [b"ab", b"c"]),
        ([b"\n\na\n"], [b"", b"", b"a"]),
        ([b"no end"], [b"no end"]),
        ([], []),
        ([b"dos\r\nline\r\n"], [b"dos", b"line"]),
        ([b"dos\r", b"\nline\r\n"], [b"dos", b"line"]),
        ([b"10%\r20%\r100%\n"], [b"100%"]),
        ([b"10%\r", b"20%\r", b"100%", b"\n"], [b"100%"]),
        ([b"\r10%", b"\r20%"], [b"20%"]),
        ([b"100%\r\r\n"], [b"100%"]),
        ([b"\xff\xfe\x00\n\xc3"], [b"\xff\xfe\x00", b"\xc3"]),
    ],
)
def test_lines_are_what_a_terminal_would_show(chunks: list[bytes], expected: list[bytes]) -> None:
    assert assemble(*chunks) == expected


def test_what_follows_a_line_that_was_shown_early_is_a_line_of_its_own() -> None:
    lines = LineAssembler()
    assert lines.feed(b"Loading...") == []
    assert lines.pending
    assert lines.flush() == [b"Loading..."]
    assert not lines.pending
    assert lines.feed(b" done\nnext\n") == [b" done", b"next"]


def test_the_bare_end_of_a_line_that_was_shown_early_adds_no_empty_line() -> None:
    lines = LineAssembler()
    lines.feed(b"Loading...")
    lines.flush()
    assert lines.feed(b"\n\nnext\n") == [b"", b"next"]


def test_a_line_that_never_ends_is_shown_in_pieces_and_costs_no_memory() -> None:
    lines = LineAssembler()
    pieces = [piece for _ in range(100) for piece in lines.feed(b"x" * 10_000)]
    assert {len(piece) for piece in pieces} == {LONGEST_LINE}
    assert sum(map(len, pieces + lines.flush())) == 1_000_000


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\r", b""))))
def test_without_carriage_returns_nothing_is_lost_however_it_is_cut(chunks: list[bytes]) -> None:
    text = b"".join(chunks)
    expected = text.split(b"\n")
    assert assemble(*chunks) == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bc\r\n"]), max_size=30), st.data())
def test_it_does_not_matter_where_the_stream_is_cut(
    parts: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(parts)
    cut = data.draw(st.integers(0, len(text)))
    assert assemble(text[:cut], text[cut:]) == assemble(text)
