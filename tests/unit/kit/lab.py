"""A laboratory for saves: a chief with its workers as threads, and a look at what they leave."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import threading
import time

import numpy as np

from distckpt.coordination.in_process import InProcessJob
from distckpt.core import layout
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.protocol.write_plan import make_plan
from distckpt.core.tensorflow_format import checkpoint_state, index_reader
from distckpt.directory.catalog import Catalog
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.messaging.keys import Keys
from distckpt.ownership.fencing import Ownership
from distckpt.restoring.verifier import Verifier
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage

from .bundles import PlainMerger, PlainState, bundle_files, values


def read_back(directory, name):
    """Returns the arrays of a checkpoint, by plain reading, without any of the roles."""
    folder = pathlib.Path(local(directory))
    index = index_reader.read_index((folder / f"{name}.index").read_bytes())
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
    """Saves like plain TensorFlow: index, data, and the file `checkpoint`."""
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
    """Local files without fsync: tests of killed processes need only the order of operations."""

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
      durable: Whether files are flushed.
      threads: How many parts of a share are written at the same time.
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
        threads=4,
    ):
        self.directory = str(directory)
        self.storage = storage or storage_of(directory)
        self.patience = Patience(deadline, slow_factor)
        self.max_to_keep = max_to_keep
        self.durable = durable
        self.threads = threads
        self.ownership = Ownership(self.storage, self.directory, durable=durable)
        self.managed = ManagedCheckpoints(
            self.storage, self.directory, max_to_keep, None, durable=durable
        )
        self.managed.delete = Pruner(
            self.storage, self.directory, self.ownership, durable=durable, threads=1
        ).prune
        self.committer = Committer(
            self.storage,
            self.directory,
            self.ownership,
            PlainMerger(self.storage),
            durable=durable,
            refresh=self.managed.refresh,
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
                thread.join(120.0)
                assert not thread.is_alive(), "a worker waits forever"

    def die(self):
        """For `FaultyStorage.on_death`: lets the other workers see the death."""
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
        subject = Subject(name, self.directory, Label(number), plan, state)
        log = PhaseLog(name, subject.label)
        return SaveSession(
            self.job.coordinator(index),
            Keys("lab", "save", 0),
            subject,
            ShardWriter(
                storage,
                self.directory,
                index,
                self.job.count,
                durable=self.durable,
                threads=self.threads,
            ),
            ChiefPart(self.committer, self.managed, subject, log) if chief else None,
            patience=self.patience,
            phase_log=log,
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
    return found - {".distckpt/abandoned/"}  # it is kept


def content(directory):
    """Returns the bytes of every file."""
    root = pathlib.Path(local(directory))
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def expected_files(directory, names):
    """Returns the files of a directory whose checkpoints are `names`, all managed."""
    directory = local(directory)
    catalog = Catalog(LocalStorage(), directory)
    expected = {"checkpoint"}
    for name in names:
        manifest = catalog.manifest(name)
        expected.add(f"{name}.index")
        if manifest is None:
            index = index_reader.read_index(
                (pathlib.Path(directory) / f"{name}.index").read_bytes()
            )
            shards = index.num_shards
            expected |= {layout.data_name(name, shard, shards) for shard in range(shards)}
            outdated = f"{name}.manifest.json"  # plain TensorFlow has saved over one of ours
            expected |= {outdated} & files_in(directory)
            continue
        assert manifest.replaces is None, f"{name} still has two versions"
        expected |= {f"{name}.manifest.json", *(f.name for f in manifest.files)}
    terms = os.listdir(os.path.join(directory, ".distckpt", "terms"))
    assert len(terms) == 1, terms
    return expected | {f".distckpt/terms/{terms[0]}", ".distckpt/holds/"}


def leftovers(directory, names):
    """Returns (files too many, files missing) of a directory with only checkpoints `names`."""
    directory = local(directory)
    found, expected = files_in(directory), expected_files(directory, names)
    return sorted(found - expected), sorted(expected - found)


def restorable(directory):
    """Returns (name, number) of what a new reader restores: the newest intact checkpoint."""
    storage = storage_of(directory)
    for name in Catalog(storage, str(directory)).candidates(time.time()):
        Verifier(storage, str(directory)).verify(name)
        return name, number_of(directory, name)
    return None
