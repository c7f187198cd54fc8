"""A share is divided into parts of about equal size, but not without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.protocol import share_parts
from distckpt.core.protocol.write_plan import Entry, Piece

MIB = 2**20


def share(*sizes):
    return [Piece(Entry(f"v{n}", "int8", (size,), size)) for n, size in enumerate(sizes)]


def counts(total, workers=1, threads=4):
    pieces = share(*[MIB] * total)
    return len(share_parts.divide(pieces, workers, threads))


def test_a_small_share_is_one_part():
    assert counts(127) == 1
    assert share_parts.divide((), 4, 4) == ((),)


def test_there_are_as_many_parts_as_threads():
    assert [counts(total) for total in (128, 191, 192, 256, 1000, 1025)] == [2, 2, 3, 4, 4, 4]
    assert counts(1000, threads=2) == 3
    assert counts(5000, threads=1) == 1


def test_a_large_share_has_more_parts_to_let_go_of_sooner():
    assert counts(2048) == 8
    assert counts(100 * 256) == share_parts.OF_ONE


def test_many_workers_write_few_files():
    assert counts(1000, workers=512) == 2
    assert counts(1000, workers=5000) == 1


def test_one_huge_tensor_is_one_part():
    assert len(share_parts.divide(share(4000 * MIB), 1, 4)) == 1


@given(st.lists(st.integers(0, 300 * MIB), max_size=40), st.integers(1, 2000), st.integers(1, 8))
def test_every_piece_is_in_one_part_in_order_and_parts_are_balanced(sizes, workers, threads):
    pieces = share(*sizes)
    divided = share_parts.divide(pieces, workers, threads)
    assert sorted(p for part in divided for p in map(pieces.index, part)) == list(range(len(sizes)))
    assert all([*map(pieces.index, part)] == sorted(map(pieces.index, part)) for part in divided)
    loads = [sum(p.nbytes for p in part) for part in divided]
    assert max(loads) - min(loads) <= max(sizes, default=0)
    if len(divided) > 1:
        assert all(divided)
