from __future__ import annotations

import math
import os

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.checkpoint import checkpoint_management

from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState, parse, render
from distckpt.errors import CheckpointDamagedError

ODD_NAMES = [
    'a"b',
    "a'b",
    "a\\b",
    "a b",
    "ä ö/ü",
    "日本",
    "a\tb",
    "a\nb",
    "\x01",
    "😀",
    "{",
    "a: b",
]
PATHS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
TIMES = st.floats(allow_nan=False, allow_infinity=False)


def test_it_reads_what_a_manager_of_tensorflow_has_written(tmp_path):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1)), tmp_path, max_to_keep=2, checkpoint_name="my ckpt"
    )
    for _ in range(3):
        manager.save()

    text = (tmp_path / "checkpoint").read_bytes()
    state = parse(text)

    theirs = tf.train.get_checkpoint_state(tmp_path)
    assert state.latest == "my ckpt-3"
    assert os.path.join(tmp_path, state.latest) == theirs.model_checkpoint_path
    assert [os.path.join(tmp_path, p) for p in state.paths] == theirs.all_model_checkpoint_paths
    assert list(state.timestamps) == theirs.all_model_checkpoint_timestamps
    assert state.last_preserved == theirs.last_preserved_timestamp
    assert render(state) == text


def written_by_tensorflow(directory, state):
    checkpoint_management.update_checkpoint_state_internal(
        str(directory),
        state.latest,
        list(state.paths),
        all_model_checkpoint_timestamps=state.timestamps,
        last_preserved_timestamp=state.last_preserved,
        save_relative_paths=True,
    )
    return (directory / "checkpoint").read_bytes()


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_it_writes_what_tensorflow_writes(tmp_path_factory, data):
    paths = data.draw(st.lists(PATHS.filter(lambda p: not p.startswith("/")), max_size=5))
    latest = data.draw(PATHS.filter(lambda p: not p.startswith("/")))
    total = len(paths) + (not paths or paths[-1] != latest)
    times = data.draw(st.just(()) | st.tuples(*[TIMES] * total))
    state = CheckpointState(latest, tuple(paths), times, data.draw(st.none() | TIMES))
    assert render(state) == written_by_tensorflow(tmp_path_factory.mktemp("run"), state)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_the_same_for_tensorflow(tmp_path, name):
    state = CheckpointState(name, ("ckpt-1", name), (1.0, 2.5), 0.5)
    text = render(state)
    assert text == written_by_tensorflow(tmp_path, state)
    assert tf.train.latest_checkpoint(tmp_path) is None
    theirs = tf.train.get_checkpoint_state(tmp_path)
    assert theirs.model_checkpoint_path == os.path.join(tmp_path, name)


@given(PATHS, st.lists(PATHS), st.data())
def test_what_was_written_is_read_back(latest, paths, data):
    paths = (*paths, latest)
    times = data.draw(st.just(()) | st.tuples(*[TIMES] * len(paths)))
    last = data.draw(st.none() | TIMES.filter(bool))
    state = CheckpointState(latest, paths, times, last)
    assert parse(render(state)) == state


def test_the_latest_is_added_to_the_paths_if_they_do_not_end_with_it():
    assert parse(render(CheckpointState("b", ("b", "a")))).paths == ("b", "a", "b")


def test_files_without_times_are_read():
    text = (
        b'model_checkpoint_path: "/x/model.ckpt-7"\nall_model_checkpoint_paths: "/x/model.ckpt-7"\n'
    )
    assert parse(text) == CheckpointState("/x/model.ckpt-7", ("/x/model.ckpt-7",))


def test_as_many_times_as_paths_are_wanted():
    with pytest.raises(ValueError, match="1 timestamps for 2 paths"):
        render(CheckpointState("b", ("a", "b"), (1.0,)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"not a message",
        b'model_checkpoint_path: ""',
        b'model_checkpoint_path: "a',
        b'model_checkpoint_path: "\\xff"',
        b'model_checkpoint_path: "a" unknown: 3',
        b'model_checkpoint_path: "a" last_preserved_timestamp: nan',
        b'model_checkpoint_path: "a" last_preserved_timestamp: 1e999',
        b'model_checkpoint_path: "a" all_model_checkpoint_timestamps: -inf',
        b'model_checkpoint_path: "a" last_preserved_timestamp: ' + b"9" * 6000,
        b'all_model_checkpoint_paths: "a"',
    ],
)
def test_garbage_is_refused(text):
    with pytest.raises(CheckpointDamagedError, match="checkpoint"):
        parse(text)


TEXT = render(CheckpointState("ckpt-2", ("ckpt-1", 'ckpt "2'), (), 3.25))


@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data):
    text = bytearray(TEXT[: data.draw(st.integers(0, len(TEXT)))] or b"x")
    for _ in range(data.draw(st.integers(0, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = parse(bytes(text))
    except CheckpointDamagedError:
        return
    assert state.latest
    assert all(map(math.isfinite, state.timestamps))


@given(st.text() | st.binary())
def test_random_input_is_refused_or_read_and_nothing_else(text):
    with pytest.raises(CheckpointDamagedError):
        parse(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
