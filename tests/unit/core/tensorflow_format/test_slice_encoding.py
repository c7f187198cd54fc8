from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.tensorflow_format.slice_encoding import (
    decode_slice_key,
    encode_slice_key,
    format_spec,
    slice_shape,
)

NAMES = st.binary() | st.lists(st.sampled_from([b"\0", b"\xff", b"\1", b"a"])).map(b"".join)
LENGTHS = st.integers(0, 2**63 - 1)
EXTENTS = st.lists(
    st.none() | st.tuples(st.integers(-(2**63), 2**63 - 1), LENGTHS), min_size=1, max_size=5
).map(tuple)


@pytest.mark.parametrize(
    ("key", "name", "extents"),
    [  # as TensorFlow 2.21 has written them
        (b"\0w\0\1\1\2\x80\x82\x80\x7f", b"w", ((0, 2), None)),
        (b"\0w\0\1\1\2\x82\x84\x80\x84", b"w", ((2, 4), (0, 4))),
        (
            b"\0w\xc3\xbf\0\xffk\0\1\1\2\xe1\x11p\xe0u0\xc0d\xc0\xc8",
            "w\xff\0k".encode(),
            ((70000, 30000), (100, 200)),
        ),
    ],
)
def test_keys_are_tensorflows(key, name, extents):
    assert decode_slice_key(key) == (name, extents)
    assert encode_slice_key(name, extents) == key


@given(NAMES, EXTENTS)
def test_a_key_says_name_and_extents(name, extents):
    assert decode_slice_key(encode_slice_key(name, extents)) == (name, extents)


@given(NAMES, NAMES, EXTENTS)
def test_keys_sort_as_names_do(one, other, extents):
    keys = encode_slice_key(one, extents), encode_slice_key(other, extents)
    assert (keys[0] < keys[1]) == (one < other)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2))
def test_keys_sort_as_starts_do(starts):
    keys = [encode_slice_key(b"w", ((start, 1),)) for start in sorted(starts)]
    assert keys == sorted(keys)


@given(NAMES, EXTENTS, st.data())
def test_a_key_that_is_cut_off_or_too_long_is_refused(name, extents, data):
    key = encode_slice_key(name, extents)
    cut = data.draw(st.integers(0, len(key) - 1))
    for wrong in (key[:cut], key + b"\0"):
        with pytest.raises(ValueError, match=r"."):
            decode_slice_key(wrong)


@given(st.binary(max_size=30) | st.binary(max_size=20).map(lambda b: b"\0w\0\1\1\2" + b))
def test_random_keys_are_refused_or_mean_exactly_themselves(key):
    try:
        name, extents = decode_slice_key(key)
    except ValueError:
        return
    assert encode_slice_key(name, extents) == key


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"w",
        b"\0w\0\2",
        b"\0w\xff\xff",
        b"\0w\0\1\0",  # no dimensions
        b"\0w\0\1\x08" + b"\xff" * 8,  # 2**64 - 1 dimensions
        b"\0w\0\1\1\1\xff\xff" + b"\0" * 20,  # a number of more than ten bytes
        b"\0w\0\1\1\1\xff\xc0" + b"\x80" + b"\0" * 7 + b"\x81",  # one of more than 64 bits
        b"\0w\0\1\1\1\x83\x7f",  # starts at 3, but is all of the dimension
    ],
)
def test_what_no_writer_makes_is_refused(key):
    with pytest.raises(ValueError, match=r"."):
        decode_slice_key(key)


def test_specs_are_those_of_savev2():
    assert format_spec((6, 4), ((0, 2), None)) == "6 4 0,2:-"
    assert format_spec((6,), (None,)) == "6 -"


def test_a_slice_has_a_shape():
    assert slice_shape((6, 4), ((2, 3), None)) == (3, 4)
    assert slice_shape((6, 0), ((6, 0), (0, 0))) == (0, 0)


@pytest.mark.parametrize("extents", [((5, 2), None), ((-1, 2), None), ((0, -2), None), (None,)])
def test_a_slice_lies_within_its_tensor(extents):
    with pytest.raises(ValueError, match="a slice"):
        slice_shape((6, 4), extents)
