"""The observable state of a manager and of its directory, as plain data to compare."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

import distckpt
from distckpt.core import layout
from distckpt.core.tensorflow_format.index_reader import read_index
from distckpt.directory.catalog import Catalog
from distckpt.ownership import process_terms
from distckpt.ownership.held_terms import HeldTerms
from distckpt.restoring.verifier import Verifier
from distckpt.saving.committer import Committer
from distckpt.storage.local import LocalStorage

from ..kit.tf_differences import TAKES_LAST_STEP

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


class Observer:
    """Reads directories and managers, through TensorFlow and through distckpt."""

    @staticmethod
    def contents(path):
        """Everything a checkpoint holds: key → (dtype, shape, bytes), the object graph as text."""
        reader = tf.train.load_checkpoint(path)
        dtypes = reader.get_variable_to_dtype_map()
        found = {}
        for key, shape in reader.get_variable_to_shape_map().items():
            if dtypes[key] == tf.variant:  # an iterator's state has neither bytes nor a fixed size
                found[key] = "variant"
                continue
            value = reader.get_tensor(key)
            if key == GRAPH_KEY:
                graph = trackable_object_graph_pb2.TrackableObjectGraph()
                graph.ParseFromString(value)
                found[key] = str(graph)
            elif dtypes[key] == tf.string:
                found[key] = (shape, np.asarray(value, object).tolist())
            else:
                found[key] = (dtypes[key].name, shape, np.asarray(value).tobytes())
        return found

    @classmethod
    def on_disk(cls, directory):
        """All checkpoints whose index exists: name → contents."""
        names = [p.name[: -len(".index")] for p in pathlib.Path(directory).glob("*.index")]
        return {name: cls.contents(os.path.join(directory, name)) for name in sorted(names)}

    @staticmethod
    def pointer(directory):
        """What TensorFlow reads in the file `checkpoint`, with paths relative to the directory."""
        state = tf.train.get_checkpoint_state(directory)
        if state is None:
            return None
        return {
            "latest": os.path.relpath(state.model_checkpoint_path, directory),
            "all": [os.path.relpath(p, directory) for p in state.all_model_checkpoint_paths],
            "timestamps": list(state.all_model_checkpoint_timestamps),
            "last preserved": state.last_preserved_timestamp,
        }

    @classmethod
    def everything(cls, manager):
        """All that a user of `manager` can see, without the path of its directory."""
        directory = manager.directory

        def relative(path):
            return None if path is None else os.path.relpath(path, directory)

        return {
            "checkpoints": [relative(p) for p in manager.checkpoints],
            "latest": relative(manager.latest_checkpoint),
            "found by tf.train.latest_checkpoint": relative(tf.train.latest_checkpoint(directory)),
            "interval": manager.checkpoint_interval,
            "pointer": cls.pointer(directory),
            "on disk": cls.on_disk(directory),
        }

    @staticmethod
    def verify(directory, name):
        """Checks every byte of a checkpoint; returns its manifest, None for a plain one."""
        storage = LocalStorage()
        Verifier(storage, str(directory)).verify(name)
        manifest = Catalog(storage, str(directory)).manifest(name)
        if manifest is not None:
            path = pathlib.Path(directory) / layout.index_name(name)
            assert _meant(manifest) == _indexed(name, read_index(path.read_bytes()))
        return manifest

    @classmethod
    def leftovers(cls, directory):
        """Files and folders that belong to no committed checkpoint and not to the directory."""
        directory = pathlib.Path(directory)
        if not directory.exists():
            return []
        belongs = {"checkpoint", ".distckpt"}
        belongs |= {f".distckpt/{name}" for name in ("terms", "abandoned", "holds")}
        belongs |= {f".distckpt/terms/{p.name}" for p in directory.glob(".distckpt/terms/*.json")}
        for path in directory.glob("*.index"):
            name = path.name[: -len(".index")]
            manifest, shards = cls.verify(directory, name), read_index(path.read_bytes()).num_shards
            belongs |= {path.name, *(layout.data_name(name, n, shards) for n in range(shards))}
            if manifest is not None:
                assert manifest.replaces is None
                belongs |= {layout.manifest_name(name), *manifest.claims}
        found = {str(p.relative_to(directory)) for p in directory.rglob("*")}
        return sorted(found - belongs)


def _meant(manifest):
    """What a manifest says of every piece: where it is and what its checksum is."""
    return {
        (e.key, p.spec, e.dtype, manifest.files[p.file].name, p.offset, p.size, p.crc32c)
        for e in manifest.entries
        for p in e.pieces
    }


def _indexed(name, index):
    """What the index says of the same."""
    files = [layout.data_name(name, shard, index.num_shards) for shard in range(index.num_shards)]
    return {
        (e.key, e.spec, e.dtype, files[e.shard], e.offset, e.size, e.crc32c) for e in index.stored
    }


@pytest.fixture(scope="session")
def observer():
    return Observer()


class Clock:
    """Stands in for `time.time`."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The time of day, for TensorFlow and for us, to be set by the test."""
    stopped = Clock()
    monkeypatch.setattr(time, "time", stopped)
    return stopped


FAST = distckpt.ManagerOptions(durable=False)
ASYNC = dataclasses.replace(FAST, enable_async=True)


@pytest.fixture
def checkpoint():
    return tf.train.Checkpoint(value=tf.Variable(1.0), table=tf.Variable(tf.zeros([50, 7])))


def value(path, key="value"):
    """Returns what a checkpoint holds of the variable `key`."""
    return tf.train.load_checkpoint(path).get_tensor(f"{key}/.ATTRIBUTES/VARIABLE_VALUE")


@pytest.fixture
def make():
    """Returns a function that makes a manager of ours which does not flush, to save time."""

    def make(checkpoint, directory, max_to_keep=None, *args, **kwargs):
        kwargs.setdefault("options", FAST)
        return distckpt.CheckpointManager(checkpoint, directory, max_to_keep, *args, **kwargs)

    return make


@pytest.fixture(params=["tensorflow", "distckpt"])
def either(request, make):
    """Returns a function that makes a manager, TensorFlow's or ours: the test holds for both."""

    def make_plain(checkpoint, directory, max_to_keep=None, *args, **kwargs):
        if "last_checkpoint_step" in kwargs and not TAKES_LAST_STEP:
            pytest.skip("TensorFlow's has no last_checkpoint_step before 2.20")
        return tf.train.CheckpointManager(checkpoint, directory, max_to_keep, *args, **kwargs)

    return make if request.param == "distckpt" else make_plain


@pytest.fixture
def another_process(monkeypatch):
    """Returns a function that makes this process forget which directories it owns."""
    return lambda: monkeypatch.setattr(process_terms, "_terms", HeldTerms())


class Gate(LocalStorage):
    """Holds back all writes while it is shut; fails at the files that the test names."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.fails_at = None

    def write(self, path, data, *, durable):
        assert self.open.wait(60)
        self._check(path)
        super().write(path, data, durable=durable)

    def read(self, path, *args):
        self._check(path)
        return super().read(path, *args)

    def _check(self, path):
        if self.fails_at is not None and path.endswith(self.fails_at):
            raise OSError(28, "No space left on device")


@pytest.fixture
def gate(monkeypatch):
    storage = Gate()
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage
    )
    yield storage
    storage.open.set()


@pytest.fixture
def stalling(monkeypatch):
    """Returns a function that lets the chief's next commit take some seconds."""
    commit, stalls = Committer.commit, []

    def slowly(self, *arguments):
        if stalls:
            time.sleep(stalls.pop())
        return commit(self, *arguments)

    monkeypatch.setattr(Committer, "commit", slowly)
    return stalls.append
