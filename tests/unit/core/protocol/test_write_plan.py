from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distckpt.core.protocol.write_plan import (
    MIN_SPLIT_BYTES,
    SLICEABLE_DTYPES,
    Entry,
    Piece,
    first_differences,
    make_plan,
)


def float32(key, *shape, **options):
    nbytes = 4
    for size in shape:
        nbytes *= size
    return Entry(key, "float32", shape, nbytes, **options)


@st.composite
def entries(draw, **fixed):
    """A list of entries with different keys."""
    found = []
    for number in range(draw(st.integers(0, 12))):
        dtype = draw(st.sampled_from(["float32", "int64", "float16", "string"]))
        shape = draw(
            st.one_of(
                st.just(()),
                st.tuples(st.integers(0, 300)),
                st.tuples(st.integers(1, 3000), st.sampled_from([1, 7, 64])),
            )
        )
        width = {"float32": 4, "int64": 8, "float16": 2, "string": 16}[dtype]
        nbytes = width
        for size in shape:
            nbytes *= size
        spec = draw(st.sampled_from(["", "", "", "", f"{number} 0,1"]))
        chief_only = draw(st.sampled_from([False, False, False, True]))
        found.append(Entry(f"k{number}", dtype, shape, nbytes, chief_only, spec))
    return found


WORKERS = st.integers(1, 9)


def rows_of(plan, entry):
    """Returns the rows in which the pieces of an entry cover it, in order."""
    pieces = [p for share in plan.shares for p in share if p.entry == entry]
    return sorted(p.rows or (0, entry.shape[0] if entry.shape else 1) for p in pieces)


@settings(max_examples=300, deadline=None)
@given(entries(), WORKERS)
def test_every_byte_is_written_by_exactly_one_worker(found, workers):
    plan = make_plan(found, workers)
    assert plan.workers == workers
    for entry in found:
        rows = rows_of(plan, entry)
        assert rows, f"nobody writes {entry}"
        if len(rows) == 1:
            assert rows[0] == (0, entry.shape[0] if entry.shape else 1)
            continue
        assert entry.sliceable
        assert rows[0][0] == 0
        assert rows[-1][1] == entry.shape[0]
        assert [stop for _, stop in rows[:-1]] == [start for start, _ in rows[1:]]
        assert all(start < stop for start, stop in rows)
    assert sum(plan.bytes_per_worker) == sum(e.nbytes for e in found)


@settings(max_examples=200, deadline=None)
@given(entries(), WORKERS, st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_entries(found, workers, chance):
    shuffled = list(found)
    chance.shuffle(shuffled)
    plan, other = make_plan(found, workers), make_plan(shuffled, workers)
    assert plan == other
    assert plan.fingerprint == other.fingerprint


@given(entries(), WORKERS)
def test_only_the_chief_writes_what_only_it_may_write(found, workers):
    plan = make_plan(found, workers)
    for share in plan.shares[1:]:
        assert not [p for p in share if p.entry.chief_only]


@given(entries(), WORKERS)
def test_shares_are_in_the_order_of_keys_and_pieces_are_distinct(found, workers):
    plan = make_plan(found, workers)
    for share in plan.shares:
        order = [(p.entry.key, p.entry.spec, p.rows or (0, 0)) for p in share]
        assert order == sorted(order)
    identities = [p.identity for share in plan.shares for p in share]
    assert len(set(identities)) == len(identities)


def test_one_worker_writes_everything_whole():
    found = [float32("a", 1000, 1000), float32("b"), float32("c", 10, chief_only=True)]
    plan = make_plan(found, 1)
    assert plan.shares == (tuple(Piece(e) for e in sorted(found, key=lambda e: e.key)),)


SIZES = st.lists(st.tuples(st.integers(500, 5000), st.integers(8, 64)), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.integers(2, 16))
@example([(500, 8)], 16)
def test_sliceable_states_are_balanced(sizes, workers):
    """The slowest worker decides how long a save takes: at most a tenth more than its share."""
    found = [float32(f"k{n}", rows, width) for n, (rows, width) in enumerate(sizes)]
    plan = make_plan(found, workers)
    total, width = sum(e.nbytes for e in found), max(width for _, width in sizes)
    grain = 4 * width  # a row cannot be split
    splittable = all(e.sliceable for e in found)
    if splittable:
        assert max(plan.bytes_per_worker) <= 1.10 * total / workers + grain


def test_one_huge_embedding_is_split_evenly():
    plan = make_plan([float32("embedding", 1_000_000, 64)], 8)
    assert set(plan.bytes_per_worker) == {32_000_000}
    assert [len(share) for share in plan.shares] == [1] * 8


def test_what_the_chief_alone_writes_is_made_up_for_by_the_others():
    found = [float32("own", 1000, 256, chief_only=True), float32("mirrored", 8000, 256)]
    plan = make_plan(found, 4)
    mean = sum(e.nbytes for e in found) / 4
    assert max(plan.bytes_per_worker) <= 1.05 * mean


def test_a_chief_with_more_than_its_share_gets_nothing_else():
    found = [float32("own", 9000, 256, chief_only=True), float32("mirrored", 3000, 256)]
    plan = make_plan(found, 4)
    assert {p.entry.key for p in plan.shares[0]} == {"own"}
    assert max(plan.bytes_per_worker[1:]) <= 1.05 * min(plan.bytes_per_worker[1:])


def test_many_small_entries_are_spread():
    plan = make_plan([float32(f"k{n:04d}", 25) for n in range(1000)], 4)
    assert [len(share) for share in plan.shares] == [250] * 4


def test_entries_without_bytes_are_spread_too():
    plan = make_plan([float32(f"k{n}", 0) for n in range(8)], 4)
    assert [len(share) for share in plan.shares] == [2] * 4


def test_what_cannot_be_sliced_goes_to_who_has_least():
    half = [Entry(f"k{n}", "float16", (1 << 20,), 1 << 21) for n in range(4)]
    plan = make_plan(half, 4)
    assert plan.bytes_per_worker == (1 << 21,) * 4


def test_a_real_looking_model_is_balanced():
    chance = random.Random(7)
    found = [float32(f"layer-{n}/kernel", chance.choice([512, 1024, 4096]), 512) for n in range(48)]
    found += [float32(f"layer-{n}/bias", 512) for n in range(48)]
    found += [Entry("graph", "string", (), 16, chief_only=True)]
    for workers in (2, 3, 4, 8, 16):
        loads = make_plan(found, workers).bytes_per_worker
        assert max(loads) <= 1.05 * sum(loads) / workers


# --- Entries and pieces


@pytest.mark.parametrize(
    ("entry", "sliceable"),
    [
        (float32("a", 64, 64), True),
        (float32("a", MIN_SPLIT_BYTES // 4), True),
        (float32("a", MIN_SPLIT_BYTES // 4 - 1), False),
        (float32("a", 1, 1 << 20), False),
        (float32("a", 64, 64, chief_only=True), False),
        (float32("a", 64, 64, spec="128 64 0,64:-"), False),
        (Entry("a", "float16", (1 << 20,), 1 << 21), False),
        (Entry("a", "string", (1 << 20,), 1 << 24), False),
        (Entry("a", "float32", (), 1 << 20), False),
    ],
)
def test_what_may_be_split(entry, sliceable):
    assert entry.sliceable is sliceable


def test_halves_are_not_among_the_types_that_tensorflow_can_put_together():
    assert not SLICEABLE_DTYPES & {"float16", "string", "variant", "resource", "uint32", "uint64"}


def test_a_piece_knows_its_slice():
    entry = float32("w", 6, 4, 2)
    assert (Piece(entry).spec, Piece(entry).shape, Piece(entry).nbytes) == ("", (6, 4, 2), 192)
    piece = Piece(entry, (4, 6))
    assert (piece.spec, piece.shape, piece.nbytes) == ("6 4 2 4,2:-:-", (2, 4, 2), 64)
    assert Piece(float32("w", 6), (0, 1)).spec == "6 0,1"
    own = float32("w", 2, 4, spec="6 4 0,2:-")
    assert Piece(own).spec == "6 4 0,2:-"
    assert Piece(own).identity == ("w", "6 4 0,2:-")


# --- Agreement


def test_fingerprints_tell_states_and_jobs_apart():
    base = [float32("a", 64, 64), float32("b", 3)]
    plans = [
        make_plan(base, 2),
        make_plan(base, 3),
        make_plan(base[:1], 2),
        make_plan([base[0], float32("c", 3)], 2),
        make_plan([base[0], float32("b", 4)], 2),
        make_plan([base[0], msgspec.structs.replace(base[1], dtype="int32")], 2),
        make_plan([base[0], msgspec.structs.replace(base[1], chief_only=True)], 2),
        make_plan([base[0], msgspec.structs.replace(base[1], collective=True)], 2),
        make_plan([base[0], msgspec.structs.replace(base[1], spec="9 0,3")], 2),
    ]
    assert len({p.fingerprint for p in plans}) == len(plans)


def test_all_entries_are_sent_if_short_hashes_of_different_states_are_equal_by_chance():
    plan = make_plan([float32("a", 3), float32("b", 3)], 2)
    other = "0" * 64 + plan.fingerprint[64:]
    assert plan.of_buckets(plan.differing(other)) == plan.entries
    one = make_plan([float32("a", 3), float32("b", 4)], 2)
    assert [e.key for e in one.of_buckets(one.differing(plan.fingerprint))] == ["b"]


def test_equal_fingerprints_mean_equal_divisions_even_if_the_chiefs_values_differ_in_shape():
    """What only the chief writes may have another shape on the others, but must not move things."""
    ours = [float32("own", 7, chief_only=True), float32("w", 640, 64)]
    ours[0] = msgspec.structs.replace(ours[0], nbytes=0)
    theirs = [msgspec.structs.replace(ours[0], shape=(9000,)), ours[1]]
    plan, other = make_plan(ours, 3), make_plan(theirs, 3)
    assert plan.fingerprint == other.fingerprint
    assert [[p.identity for p in s] for s in plan.shares] == [
        [p.identity for p in s] for s in other.shares
    ]


@given(entries(), WORKERS)
def test_collective_is_what_any_entry_is(found, workers):
    assert not make_plan(found, workers).collective
    collective = [*found, Entry("zz", "float32", (), 4, collective=True)]
    assert make_plan(collective, workers).collective


def test_first_differences_name_keys_and_what_each_has():
    mine = [float32("a", 3), float32("b", 3), float32("c", 3, chief_only=True), float32("e")]
    theirs = [float32("a", 4), float32("c", 3), float32("d"), float32("e")]
    assert first_differences(mine, theirs, most=9) == [
        "a: float32[3] on the chief, float32[4] there",
        "b: float32[3] on the chief, absent there",
        "c: float32[3], not mirrored on the chief, float32[3] there",
        "d: absent on the chief, float32[] there",
    ]
    assert len(first_differences(mine, theirs)) == 3
    assert first_differences(mine, mine) == []


def test_ten_thousand_entries_are_balanced_over_64_workers():
    found = [float32(f"k{n}", 128, 1 + n % 64) for n in range(10_000)]
    plan = make_plan(found, 64)
    loads = plan.bytes_per_worker
    assert max(loads) <= 1.10 * sum(loads) / 64


# --- Large jobs


def test_1024_workers_share_10_000_entries_evenly_and_nothing_is_missing():
    """A few large tensors that can be cut, some that are too large for one share, many small."""
    found = [float32(f"large-{n}", 1024, 1024) for n in range(1000)]
    found += [float32(f"embedding-{n}", 100_000, 256) for n in range(3)]
    found += [Entry(f"half-{n}", "float16", (512, 512), 1 << 19) for n in range(1000)]
    found += [float32(f"small-{n}", n % 80) for n in range(7997)]
    found.append(Entry("graph", "string", (), 0, chief_only=True))
    plan = make_plan(found, 1024)
    assert plan.workers == 1024
    assert all(plan.shares)
    loads = plan.bytes_per_worker
    assert max(loads) <= 1.05 * sum(loads) / 1024
    rows = {}
    for share in plan.shares:
        for piece in share:
            whole = (0, piece.entry.shape[0] if piece.entry.shape else 1)
            rows.setdefault(piece.entry.key, []).append(piece.rows or whole)
    assert rows.keys() == {e.key for e in found}
    for entry in found:
        parts = sorted(rows[entry.key])
        stops = [0, *(stop for _, stop in parts)]
        assert stops[-1] == (entry.shape[0] if entry.shape else 1)
        assert [start for start, _ in parts] == stops[:-1]


# --- What is cut must be copied to be held: fewer cuts are better, as long as nobody has too much


def cuts(plan):
    return [piece for share in plan.shares for piece in share if piece.rows]


def resnet50():
    """The variables of ResNet-50 as TensorFlow shapes them: 98 MiB, half of them in 1x1 kernels."""
    found = []

    def add(size, inputs, outputs):
        name = f"conv-{len(found):03d}"
        found.append(float32(f"{name}/kernel", size, size, inputs, outputs))
        found.extend(float32(f"{name}/{kind}", outputs) for kind in ("gamma", "beta"))

    add(7, 3, 64)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            if block == 0:
                add(1, inputs, 4 * width)
            add(1, inputs, width)
            add(3, width, width)
            add(1, width, 4 * width)
            inputs = 4 * width
    return [*found, float32("dense/kernel", 2048, 1000), float32("dense/bias", 1000)]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_equal_variables_that_divide_evenly_are_not_cut(workers):
    found = [float32(f"v{n:02d}", 4096, 1024) for n in range(32)]
    found.append(Entry("graph", "string", (), 0, chief_only=True))
    plan = make_plan(found, workers)
    assert not cuts(plan)
    assert len(set(plan.bytes_per_worker)) == 1


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_resnet_is_balanced_without_a_cut(workers):
    found = resnet50()
    assert len(found) == 161
    plan = make_plan(found, workers)
    assert not cuts(plan)
    loads = plan.bytes_per_worker
    assert max(loads) <= 1.01 * sum(loads) / workers


def test_what_can_be_cut_makes_up_for_what_cannot_even_if_that_is_smaller():
    """In the order of sizes alone, four of eight workers would have twice as much as the others."""
    found = [float32(f"a{n}", 1000, 250) for n in range(8)]
    found += [Entry(f"b{n}", "float16", (450_000,), 900_000) for n in range(4)]
    loads = make_plan(found, 8).bytes_per_worker
    assert max(loads) <= 1.05 * sum(loads) / 8


@pytest.mark.parametrize(("rows", "cut"), [(1020, False), (1040, True)])
def test_nothing_is_cut_for_a_difference_that_hardly_counts(rows, cut):
    plan = make_plan([float32("a", rows, 64), float32("b", 2000 - rows, 64)], 2)
    assert bool(cuts(plan)) is cut
