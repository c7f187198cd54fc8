"""A laboratory for the roles: real tensor bundles without TensorFlow, workers as threads."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import threading
import time

import numpy as np

from distckpt.coordination.in_process import InProcessJob
from distckpt.core import bundle, checkpoint_state, crc32c, layout
from distckpt.core import bundle_proto as proto
from distckpt.core.bundle_merge import merge_indexes
from distckpt.core.delays import Patience
from distckpt.core.plan import Entry, Piece, make_plan
from distckpt.core.slices import encode_slice_key
from distckpt.core.table import write_table
from distckpt.roles.books import Books
from distckpt.roles.catalog import Catalog
from distckpt.roles.committer import Committer
from distckpt.roles.keys import Keys
from distckpt.roles.ownership import Ownership
from distckpt.roles.pruner import Pruner
from distckpt.roles.recorder import Label
from distckpt.roles.session import SaveSession
from distckpt.roles.verifier import Verifier
from distckpt.roles.writer import Writer
from distckpt.state.base import CapturedState, Merger
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage

DTYPES = {"float32": 1, "int64": 9}
SHAPES = {"kernel": (96, 128), "bias": (128,), "step": ()}


def values(number):
    """Returns a state that differs in every byte position from that of any other small number."""
    kernel = np.arange(96 * 128, dtype=np.float32).reshape(96, 128) + 1000 * number
    return {
        "bias": np.full(128, number, np.float32),
        "kernel": kernel,
        "step": np.array(number, np.int64),
    }


# --- Bundles ------------------------------------------------------------------------------------


def bundle_files(tensors):
    """Returns (index, data) of a bundle.

    Args:
      tensors: [(key, whole shape, rows or None, array)].
    """
    data, entries = b"", {}
    for key, shape, rows, array in tensors:
        raw = np.ascontiguousarray(array).tobytes()
        stored = proto.Entry(
            dtype=DTYPES[array.dtype.name],
            shape=encode_shape(array.shape),
            offset=len(data),
            size=len(raw),
            crc32c=crc32c.mask(crc32c.value(raw)),
        )
        data += raw
        if rows is None:
            entries[key.encode()] = stored
            continue
        extents = ((rows[0], rows[1] - rows[0]), *[None] * (len(shape) - 1))
        entries[encode_slice_key(key.encode(), extents)] = stored
        whole = entries.setdefault(
            key.encode(), proto.Entry(dtype=stored.dtype, shape=encode_shape(shape))
        )
        whole.slices.append(encode_extents(extents))
    version = proto.Version(producer=proto.VERSION).SerializeToString()
    header = proto.Header(num_shards=1, version=version)
    rows = [(key, entries[key].SerializeToString()) for key in sorted(entries)]
    return write_table([(b"", header.SerializeToString()), *rows]), data


def encode_shape(shape):
    return proto._Shape(
        dim=[proto._Dim(size=n).SerializeToString() for n in shape]
    ).SerializeToString()


def encode_extents(extents):
    parts = [proto._Extent(start=e[0], length=e[1]) if e else proto._Extent() for e in extents]
    return proto._Slice(extent=[p.SerializeToString() for p in parts]).SerializeToString()


class PlainState(CapturedState):
    """Arrays, written through a `Storage`."""

    def __init__(self, storage, arrays):
        self._storage = storage
        self._arrays = arrays
        self.entries = tuple(
            Entry(key, a.dtype.name, a.shape, a.nbytes, chief_only=key == "step")
            for key, a in arrays.items()
        )

    def keep(self, pieces):
        wanted = {p.entry.key for p in pieces}
        self._arrays = {k: a for k, a in self._arrays.items() if k in wanted}

    def write(self, folder, stem, pieces):
        if not pieces:
            return ()
        index, data = bundle_files(
            [(p.entry.key, p.entry.shape, p.rows, self._part(p)) for p in pieces]
        )
        path = layout.join(folder, stem)
        self._storage.write(layout.data_name(path, 0, 1), data, durable=False)
        self._storage.write(layout.index_name(path), index, durable=False)
        return (stem,)

    def _part(self, piece: Piece):
        array = self._arrays[piece.entry.key]
        return array if piece.rows is None else array[slice(*piece.rows)]


class PlainMerger(Merger):
    """Does what ``MergeV2Checkpoints`` does, in steps that a `Storage` sees."""

    def __init__(self, storage):
        self._storage = storage

    def merge(self, folder, prefixes, name):
        paths = [layout.join(folder, prefix) for prefix in prefixes]
        indexes = [self._storage.read(layout.index_name(path)) for path in paths]
        for shard, path in enumerate(paths):
            target = layout.data_name(layout.join(folder, name), shard, len(paths))
            self._storage.rename(layout.data_name(path, 0, 1), target)
        merged = layout.index_name(layout.join(folder, name))
        self._storage.write(merged, merge_indexes(indexes), durable=False)
        for path in paths:
            self._storage.remove(layout.index_name(path))


def read_back(directory, name):
    """Returns the arrays of a checkpoint, by plain reading, without any of the roles."""
    folder = pathlib.Path(local(directory))
    index = bundle.read_index((folder / f"{name}.index").read_bytes())
    arrays = {e.key: np.zeros(e.shape, e.dtype) for e in index.tensors}
    for entry in index.stored:
        file = folder / layout.data_name(name, entry.shard, index.num_shards)
        raw = file.read_bytes()[entry.offset : entry.offset + entry.size]
        part = np.frombuffer(raw, entry.dtype).reshape(entry.shape)
        if entry.spec:
            start, length = map(int, entry.spec.split(" ")[-1].split(":")[0].split(","))
            arrays[entry.key][start : start + length] = part
        else:
            arrays[entry.key] = part
    return arrays


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[k].tobytes() == expected[k].tobytes() for k in expected
    )


def number_of(directory, name):
    """Returns which `values` a checkpoint has, bit for bit."""
    found = read_back(directory, name)
    number = int(found["step"])
    assert same(found, values(number)), f"{name} is a mixture"
    return number


def plain_save(directory, name, number, *, listed=True):
    """Saves as plain TensorFlow does: index, data, `checkpoint` file."""
    storage = storage_of(directory)
    storage.make_directory(str(directory))
    index, data = bundle_files([(k, a.shape, None, a) for k, a in sorted(values(number).items())])
    path = layout.join(str(directory), name)
    storage.write(layout.data_name(path, 0, 1), data, durable=False)
    storage.write(layout.index_name(path), index, durable=False)
    if listed:
        point_to(directory, [name])


def point_to(directory, names, times=None, last_preserved=None):
    """Writes a `checkpoint` file."""
    times = tuple(times or (time.time() + 1e-6 * i for i in range(len(names))))
    state = checkpoint_state.CheckpointState(names[-1], tuple(names), times, last_preserved)
    path = layout.join(str(directory), "checkpoint")
    storage_of(directory).write(path, checkpoint_state.render(state), durable=False)


class FastStorage(LocalStorage):
    """Local files without fsync: what matters here is the order, as a killed process leaves it."""

    def write(self, path, data, *, durable):
        super().write(path, data, durable=False)

    def create(self, path, data, *, durable):
        super().create(path, data, durable=False)

    def flush(self, path):
        os.stat(path)

    def flush_directory(self, path):
        os.stat(path)


def storage_of(directory):
    """Returns the storage of a directory: TensorFlow's for a URL."""
    return GFileStorage() if _is_url(directory) else FastStorage()


def _is_url(directory):
    return "://" in str(directory)


# --- Processes ----------------------------------------------------------------------------------


class Chief:
    """A process that saves to a directory, with workers as threads.

    Args:
      directory: The directory, or its URL.
      storage: The chief's storage.
      max_to_keep: As in a manager.
      deadline: Seconds for a save.
      slow_factor: By how much that is extended.
    """

    def __init__(
        self,
        directory,
        storage=None,
        *,
        max_to_keep=2,
        deadline=20.0,
        slow_factor=1.0,
        durable=True,
    ):
        self.directory = str(directory)
        self.storage = storage or storage_of(directory)
        self.patience = Patience(deadline, slow_factor)
        self.max_to_keep = max_to_keep
        self.durable = durable
        self.ownership = Ownership(self.storage, self.directory, durable=durable)
        self.books = Books(self.storage, self.directory, max_to_keep, None, durable=durable)
        self.books.delete = Pruner(
            self.storage, self.directory, self.ownership, durable=durable, threads=1
        ).prune
        self.committer = Committer(
            self.storage,
            self.directory,
            self.ownership,
            PlainMerger(self.storage),
            durable=durable,
            on_takeover=self.books.reload,
        )
        self.job = None
        self.workers_ends = []

    def save(self, name, number, workers=1, *, others=()):
        """Saves `values(number)` as checkpoint `name`.

        Args:
          name: The checkpoint's name.
          number: Which values.
          workers: How many workers take part; all but the chief get a storage of their own.
          others: Storages for the workers from 1 on; the rest get new ones.
        """
        self.job = InProcessJob(workers)
        self.workers_ends = [None] * (workers - 1)
        storages = [*others, *(storage_of(self.directory) for _ in range(workers))]
        threads = [
            threading.Thread(
                target=self._work, args=(i, name, number, storages[i - 1]), daemon=True
            )
            for i in range(1, workers)
        ]
        for thread in threads:
            thread.start()
        try:
            return self._session(0, name, number, self.storage).run()
        except BaseException:
            if getattr(self.storage, "dead", False):
                self.job.kill(0, "its process died")
            raise
        finally:
            for thread in threads:
                thread.join(30.0)
                assert not thread.is_alive(), "a worker waits for ever"

    def die(self):
        """For FaultyStorage.on_death: what the others see of the death."""
        if self.job is not None:
            self.job.kill(0, "its process died")

    def _work(self, index, name, number, storage):
        try:
            self._session(index, name, number, storage).run()
        except BaseException as error:
            self.workers_ends[index - 1] = error

    def _session(self, index, name, number, storage):
        chief = index == 0
        state = PlainState(storage, values(number))
        plan = make_plan(state.entries, self.job.count)
        state.keep(plan.shares[index])
        return SaveSession(
            self.job.coordinator(index),
            Writer(storage, self.directory, index, self.job.count, durable=self.durable),
            self.committer if chief else None,
            self.books if chief else None,
            Keys("lab", "save", 0),
            name=name,
            directory=self.directory,
            label=Label(number),
            plan=plan,
            state=state,
            patience=self.patience,
        )


# --- Looking ------------------------------------------------------------------------------------

_copy = tempfile.TemporaryDirectory(prefix="lab-")


def local(directory):
    """Returns the path of a directory; of a URL, of a copy, which the next call overwrites."""
    if not _is_url(directory):
        return str(directory)
    copy = os.path.join(_copy.name, "run")
    shutil.rmtree(copy, ignore_errors=True)
    _download(GFileStorage(), str(directory), copy)
    return copy


def _download(storage, source, target):
    os.makedirs(target)
    for name in storage.list(source):
        inner, copy = layout.join(source, name), os.path.join(target, name)
        if storage.is_directory(inner):
            _download(storage, inner, copy)
        else:
            pathlib.Path(copy).write_bytes(storage.read(inner))


def files_in(directory):
    """Returns the relative paths of all files; of an empty directory its path and a slash."""
    directory = local(directory)
    found = set()
    for folder, folders, names in os.walk(directory):
        relative = os.path.relpath(folder, directory)
        found |= {os.path.normpath(os.path.join(relative, n)) for n in names}
        if not folders and not names:
            found.add(relative + "/")
    return found - {".distckpt/abandoned/"}  # which stays


def content(directory):
    """Returns the bytes of every file."""
    root = pathlib.Path(local(directory))
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def expected_files(directory, names):
    """Returns exactly what a directory with checkpoints `names`, all managed, has."""
    directory = local(directory)
    catalog = Catalog(LocalStorage(), directory)
    expected = {"checkpoint"}
    for name in names:
        manifest = catalog.manifest(name)
        expected.add(f"{name}.index")
        if manifest is None:
            index = bundle.read_index((pathlib.Path(directory) / f"{name}.index").read_bytes())
            shards = index.num_shards
            expected |= {layout.data_name(name, shard, shards) for shard in range(shards)}
            outdated = f"{name}.manifest.json"  # plain TensorFlow has saved over one of ours
            expected |= {outdated} & files_in(directory)
            continue
        assert manifest.replaces is None, f"{name} still has two versions"
        expected |= {f"{name}.manifest.json", *(f.name for f in manifest.files)}
    epochs = os.listdir(os.path.join(directory, ".distckpt", "epochs"))
    assert len(epochs) == 1, epochs
    return expected | {f".distckpt/epochs/{epochs[0]}", ".distckpt/holds/"}


def leftovers(directory, names):
    """Returns (too much, too little) in a directory that has just checkpoints `names`."""
    directory = local(directory)
    found, expected = files_in(directory), expected_files(directory, names)
    return sorted(found - expected), sorted(expected - found)


def restorable(directory):
    """Returns (name, number) of what a fresh reader restores: the newest that is whole."""
    storage = storage_of(directory)
    for name in Catalog(storage, str(directory)).candidates(time.time()):
        Verifier(storage, str(directory)).verify(name)
        return name, number_of(directory, name)
    return None
