from __future__ import annotations

import struct
import tracemalloc

import google_crc32c
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.leveldb_table import read_table, write_table
from distckpt.errors import CheckpointDamagedError

from .by_tensorflow import save

PAIRS = st.dictionaries(
    st.binary(max_size=40) | st.text("ab/", max_size=8).map(str.encode), st.binary(max_size=40)
).map(lambda d: sorted(d.items()))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    tensors = {f"layer-{i}/kernel": tf.zeros([i, 3]) for i in range(40)}
    return save(tmp_path_factory.mktemp("small") / "m", list(tensors), list(tensors.values()))


@pytest.fixture(scope="module")
def large_index(tmp_path_factory):
    """An index of several blocks, with entries that need a block of their own."""
    value = tf.zeros([1])
    names = [f"model/layer-{i:05d}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(7000)]
    names += ["n" * 600_000, "n" * 600_001, "n" * 600_001 + "z", "\xff" * 300_000]
    return save(tmp_path_factory.mktemp("large") / "m", names, [value] * len(names))


# --- Against TensorFlow's writer


@pytest.mark.parametrize("which", ["index", "large_index"])
def test_a_table_is_written_as_tensorflow_writes_it(which, request):
    data = request.getfixturevalue(which)
    assert write_table(read_table(data)) == data


def test_all_keys_are_read(index):
    keys = [key for key, _ in read_table(index)]
    assert keys == [b"", *sorted(b"layer-%d/kernel" % i for i in range(40))]


# --- There and back


@given(PAIRS)
@example([])
@example([(b"", b"")])
@example([(b"\xff" * 3, b"")])
@example([(b"a", b"x" * 300_000), (b"b", b"y" * 600_000), (b"c", b"")])
def test_what_was_written_is_read_back(pairs):
    assert read_table(write_table(pairs)) == pairs


# --- Damage


def test_every_flipped_bit_is_noticed(index):
    for position in range(len(index)):
        for bit in range(8):
            damaged = bytearray(index)
            damaged[position] ^= 1 << bit
            with pytest.raises(CheckpointDamagedError):
                read_table(bytes(damaged))


def test_every_truncation_is_noticed(index):
    for size in range(len(index)):
        with pytest.raises(CheckpointDamagedError):
            read_table(index[:size])
        with pytest.raises(CheckpointDamagedError):
            read_table(index[size + 1 :])


def test_bytes_added_are_noticed(index):
    for wrong in (index + b"\0", b"\0" + index, index + index):
        with pytest.raises(CheckpointDamagedError):
            read_table(wrong)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(CheckpointDamagedError):
        read_table(data)


def first_block(data):
    """Returns the data block, without its trailer, of a small table."""
    meta_offset = varints(data[-48:], 1)[0]
    return data[: meta_offset - 5]


def varints(data, count):
    numbers, position = [], 0
    for _ in range(count):
        number = shift = 0
        while True:
            byte = data[position]
            number |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
        numbers.append(number)
    return numbers


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def seal(block, kind=0):
    block += bytes([kind])
    return block + struct.pack("<I", crc32c.mask(google_crc32c.value(block)))


def entry(shared, key, value, fresh=None, length=None):
    sizes = (shared, len(key) if fresh is None else fresh, len(value) if length is None else length)
    return b"".join(map(varint, sizes)) + key + value


def block(*entries, restarts=(0,)):
    return b"".join(entries) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(*blocks, handles=None, kind=0, footer=None):
    """Returns a table of data blocks that may be wrong inside, but have the right checksums."""
    out, found = b"", []
    for content in blocks:
        found.append(varint(len(out)) + varint(len(content)))
        out += seal(content, kind)
    meta = varint(len(out)) + varint(8)
    out += seal(block())
    index = block(*(entry(0, bytes([65 + i]), h) for i, h in enumerate(handles or found)))
    where = varint(len(out)) + varint(len(index))
    out += seal(index)
    return out + (footer or (meta + where).ljust(40, b"\0")) + struct.pack("<Q", 0xDB4775248B80FB57)


def test_the_hand_made_tables_of_this_test_are_right():
    made = table(block(entry(0, b"", b"x"), entry(0, b"ab", b"y"), entry(1, b"c", b"z")))
    assert read_table(made) == [(b"", b"x"), (b"ab", b"y"), (b"ac", b"z")]


GOOD = entry(0, b"k", b"v")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (table(block(entry(0, b"k", b"v", length=2))), "beyond its bounds"),
        (table(block(entry(0, b"k", b"v", fresh=2**31))), "beyond its bounds"),
        (table(block(entry(0, b"k", b"v", length=2**63))), "beyond its bounds"),
        (table(block(entry(1, b"k", b"v"))), "beyond its bounds"),
        (table(block(GOOD, b"\x80" * 3)), "beyond its bounds|too long|cut off"),
        (table(block(GOOD, b"\xff" * 12)), "too long|cut off"),
        (table(block(GOOD, GOOD)), "out of order"),
        (table(block(entry(0, b"b", b""), entry(0, b"a", b""))), "out of order"),
        (table(block(GOOD), block(GOOD)), "out of order"),
        (table(block(GOOD), block(entry(1, b"x", b""))), "beyond its bounds"),
        (table(b""), "restarts"),
        (table(b"\0" * 7), "restarts"),
        (table(block(GOOD, restarts=())), "restarts"),
        (table(struct.pack("<II", 0, 2**32 - 1)), "restarts"),
        (table(block(GOOD), kind=1), r"compressed \(type 1\)"),
        (table(block(GOOD), handles=[varint(0) + varint(2**60)]), "beyond the end"),
        (table(block(GOOD), handles=[varint(2**64 - 1) + varint(13)]), "no block begins"),
        (table(block(GOOD), handles=[varint(0) + b"\x80"]), "cut off"),
        (table(block(GOOD), handles=[b"\xff" * 10 + b"\x01"]), "too long"),
        (table(block(GOOD), handles=[varint(0) + varint(len(block(GOOD))) + b"\0"]), "no block"),
        (table(block(GOOD), handles=[b"\0" + varint(len(block(GOOD)))] * 2), "no block begins"),
        (table(block(GOOD), footer=b"\xff" * 40), "too long"),
        (table(block(GOOD), footer=b"\0" * 40), "no block begins|checksum"),
        (table(block(GOOD), footer=(varint(2**62) * 4).ljust(40, b"\0")), "beyond the end"),
    ],
)
def test_a_contradiction_under_a_right_checksum_is_named(data, why):
    with pytest.raises(CheckpointDamagedError, match=why):
        read_table(data)


def test_the_place_of_damage_is_named(index):
    damaged = b"\xff" + index[1:]
    with pytest.raises(CheckpointDamagedError, match=r"block at byte 0 has checksum 0x\w+, not 0x"):
        read_table(damaged)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_damage_under_a_right_checksum_is_read_or_refused_and_nothing_else(index, data):
    target = bytearray(first_block(index))
    for _ in range(data.draw(st.integers(1, 4))):
        target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del target[data.draw(st.integers(0, len(target))) :]
    try:
        pairs = read_table(table(bytes(target)))
    except CheckpointDamagedError:
        return
    assert [key for key, _ in pairs] == sorted({key for key, _ in pairs})


def test_a_small_file_cannot_unfold_to_a_huge_one():
    long = entry(0, b"a" * 50_000, b"")
    bomb = table(block(long, *(entry(50_000 + i, b"a", b"") for i in range(20_000))))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointDamagedError, match="far longer"):
            read_table(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * len(bomb)  # unfolded it would be a gigabyte, 5000 times its size
