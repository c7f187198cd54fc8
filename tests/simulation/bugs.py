"""Bugs to be put into distckpt on purpose: what checks the simulation's own checks.

Each is a change of the real code, the kind of mistake that one makes; several are mistakes that
were made, and that the simulation has found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from distckpt.core import holds, layout, messages, retention, steps
from distckpt.core.manifest import Manifest
from distckpt.core.protocol import ChiefSave, WorkerSave
from distckpt.errors import ConfigurationError, Failure
from distckpt.roles import catalog, holding, patient, pruner
from distckpt.roles.checkpoint_files import CheckpointFiles
from distckpt.roles.committer import Committer
from distckpt.roles.keys import Keys
from distckpt.roles.ownership import Ownership
from distckpt.roles.recovery import Recovery
from distckpt.roles.restore import RestoreSession
from distckpt.roles.session import SaveSession
from distckpt.roles.waiting import Waiting
from distckpt.roles.writer import Writer

from .storage import SimulatedStorage

Change = tuple[Any, str, Any]
BUGS: dict[str, Callable[[], list[Change]]] = {}
# What makes bugs show sooner that take several coincidences; see `run.play`.
FOCUS: dict[str, dict[str, Any]] = {
    "a_changing_checkpoint_counts_as_damaged": {
        "names": 2,
        "jobs": 3,
        "max_to_keep": 2,
        "lag": 0.0,
        "kinds": ["second_job"],
    },
    "an_error_of_the_storage_counts_as_damage": {"jobs": 2, "kinds": ["fail_once"]},
    "a_roll_is_not_waited_for": {
        "collective": True,
        "late": True,
        "slow_factor": 1.0,
        "kinds": ["slow", "pause"],
    },
    "folders_of_a_replaced_chief_stay": {
        "names": 2,
        "jobs": 3,
        "collective": False,
        "late": False,
        "lag": 0.0,
        "kinds": ["second_job", "pause"],
    },
    "a_pin_is_looked_for_only_before": {"pins": True, "max_to_keep": 1, "names": 0},
    "a_pin_is_granted_without_a_second_look": {"pins": True, "max_to_keep": 1, "names": 0},
    "the_first_checkpoint_is_forgotten": {"strict": True},
    "write_on_when_the_save_is_over": {"deadline": 3.0, "kinds": ["fail_once"]},
}


@contextlib.contextmanager
def with_bug(name: str | None) -> Iterator[None]:
    """Puts a bug into the code for a while; none if `name` is None."""
    changes = BUGS[name]() if name else []
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in changes]
    try:
        for owner, attribute, instead in changes:
            setattr(owner, attribute, instead)
        yield
    finally:
        for owner, attribute, old in before:
            setattr(owner, attribute, old)


def _bug(make: Callable[[], list[Change]]) -> Callable[[], list[Change]]:
    BUGS[make.__name__] = make
    return make


def _nothing(*args: object, **kwargs: object) -> None:
    """Does nothing."""


# --- The protocol -------------------------------------------------------------------------------


@_bug
def commit_before_the_last_report() -> list[Change]:
    """The chief does not wait for the worker that answers last."""
    original = ChiefSave._take

    def take(self, report):
        actions = original(self, report)
        if isinstance(actions[-1], steps.AwaitAnswer) and len(actions[-1].workers) == 1:
            return self._then(steps.Merge(self._in_order()))
        return actions

    return [(ChiefSave, "_take", take)]


@_bug
def success_is_told_before_the_commit() -> list[Change]:
    """The workers hear that all is well when all have written."""
    original = SaveSession._merge

    def merge(self, reports):
        event = original(self, reports)
        self._tell(None)
        return event

    return [(SaveSession, "_merge", merge)]


@_bug
def prune_before_commit() -> list[Change]:
    """What retention will give up goes before the new checkpoint is there."""
    original = SaveSession._commit

    def commit(self, reports):
        keep, active = self._books._max_to_keep, self._books.active
        if keep and len(active) >= keep:
            self._books.delete([kept.name for kept in active[: len(active) - keep + 1]])
        return original(self, reports)

    return [(SaveSession, "_commit", commit)]


@_bug
def report_of_an_older_save_is_accepted() -> list[Change]:
    """The key of an answer does not say which save it is for."""
    return [(Keys, "answer", lambda self, worker: f"sim/answer-{worker}")]


@_bug
def collective_without_a_roll() -> list[Change]:
    """All begin to read together at once, without knowing whether all will come."""

    def start(self):
        ready = steps.SendReady(self._plan.fingerprint)
        return self._then(ready, steps.ReadTogether() if self._plan.collective else steps.Open())

    original = WorkerSave.start

    def start_worker(self):
        if not self._plan.collective:
            return original(self)
        return self._then(steps.SendReady(self._plan.fingerprint), steps.ReadTogether())

    return [(ChiefSave, "start", start), (WorkerSave, "start", start_worker)]


@_bug
def wait_without_a_deadline() -> list[Change]:
    """A worker waits for the chief's last word as long as it takes."""
    original = Waiting.for_outcome

    def for_outcome(self):
        self._deadline = math.inf
        return original(self)

    return [(Waiting, "for_outcome", for_outcome)]


@_bug
def a_roll_is_not_waited_for() -> list[Change]:
    """Who gives up, and cannot see yet whether all are called, leaves; the others read together."""

    def for_roll(self):
        got = self._fetch([self._keys.roll], [0])
        if got is None or isinstance(got, Failure):
            return steps.TimedOut(got or self._too_late([0]))
        return steps.Called(messages.roll_from_json(got[1]))

    return [(Waiting, "for_roll", for_roll)]


@_bug
def write_on_when_the_save_is_over() -> list[Change]:
    """A worker that is late looks for a folder that is gone, and misses the next save."""
    return [(Waiting, "is_over", lambda self: False)]


# --- The commit ---------------------------------------------------------------------------------


@_bug
def directory_is_not_flushed() -> list[Change]:
    """The commit's renames are left to the operating system."""
    return [(Committer, "_flush", _nothing)]


@_bug
def parents_are_not_flushed() -> list[Change]:
    """The directory itself may be lost."""
    return [(layout, "ancestors", lambda directory: [])]


@_bug
def shards_are_not_flushed() -> list[Change]:
    """Workers report what is only in their machine's memory."""
    original = Writer.write

    def write(self, *args, **kwargs):
        self._durable = False
        return original(self, *args, **kwargs)

    return [(Writer, "write", write)]


@_bug
def manifest_before_index() -> list[Change]:
    """The commit comes before what it commits."""
    move, publish = Committer._move, Committer._publish
    late: dict[int, tuple[str, str]] = {}

    def move_late(self, folder, name, target=None):
        if name.endswith(".index"):
            late[id(self)] = (folder, name)
        else:
            move(self, folder, name, target)

    def publish_first(self, manifest, folder):
        publish(self, manifest, folder)
        move(self, *late.pop(id(self)))

    return [(Committer, "_move", move_late), (Committer, "_publish", publish_first)]


@_bug
def data_before_prepared_manifest() -> list[Change]:
    """Files are in the directory before it is written down whose they are."""
    original = Committer._prepare

    def prepare(self, manifest, reports, folder):
        write = self._storage.write
        held: list[tuple] = []
        self._storage.write = lambda *args, **kwargs: held.append((args, kwargs))
        try:
            original(self, manifest, reports, folder)
        finally:
            del self._storage.write
        for args, kwargs in held:
            write(*args, **kwargs)

    return [(Committer, "_prepare", prepare)]


@_bug
def data_files_keep_their_names() -> list[Change]:
    """A checkpoint that is saved again overwrites the files of the one that is in force."""
    return [(Committer, "_renumber", _nothing)]


@_bug
def worker_states_keep_their_names() -> list[Change]:
    """The files of the version that is being replaced are replaced before the commit."""
    return [(layout, "parse_worker_file", lambda file: None)]


@_bug
def worker_states_are_not_flushed() -> list[Change]:
    """What only single workers have may be lost with the power."""
    original = SimulatedStorage.flush

    def flush(storage: SimulatedStorage, path: str) -> None:
        if ".own." not in path:
            original(storage, path)

    return [(SimulatedStorage, "flush", flush)]


@_bug
def worker_states_stay_when_all_else_goes() -> list[Change]:
    """Nobody claims them, so nobody deletes them."""

    def claims(manifest: Manifest) -> frozenset[str]:
        old = manifest.replaces.files if manifest.replaces else ()
        names = frozenset(file.name for file in manifest.files) | frozenset(old)
        return frozenset(name for name in names if not layout.parse_worker_file(name))

    return [(Manifest, "claims", property(claims)), (CheckpointFiles, "all", CheckpointFiles.data)]


@_bug
def version_is_replaced_without_a_switch() -> list[Change]:
    """A checkpoint of the same name is replaced as if there were none."""
    return [(Committer, "_replaced", _nothing)]


# --- Who may do it ------------------------------------------------------------------------------


@_bug
def epoch_is_ignored() -> list[Change]:
    """A chief that has been replaced goes on."""
    return [(Ownership, "check", _nothing)]


@_bug
def folders_of_a_replaced_chief_stay() -> list[Change]:
    """A successor settles what it finds, but leaves the folders where their owner has them."""

    def finish_all(self):
        for parent, name in self._unfinished(self._ownership.epoch or 0, []):
            self._settle(layout.join(parent, name))

    return [(Recovery, "finish_all", finish_all)]


@_bug
def an_old_listing_is_believed() -> list[Change]:
    """A network file system's client is not made to look again."""
    return [(SimulatedStorage, "freshen", _nothing)]


@_bug
def every_chief_takes_the_same_epoch() -> list[Change]:
    """Who finds the epoch's file there takes it for its own."""
    original = Ownership.take

    def take(self):
        create = self._storage.create

        def create_or_keep(path, data, *, durable):
            with contextlib.suppress(FileExistsError):
                create(path, data, durable=durable)

        self._storage.create = create_or_keep
        try:
            return original(self)
        finally:
            del self._storage.create

    return [(Ownership, "take", take), (Ownership, "_taken", lambda self: [])]


# --- Deleting and recovering --------------------------------------------------------------------


@_bug
def tombstone_after_the_data() -> list[Change]:
    """The files of a checkpoint go before its manifest does."""
    original = pruner.Pruner._bury

    def bury(self, name, folder):
        files = pruner.CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )
        for file in files.data():
            files._remove(file)
        return original(self, name, folder)

    return [(pruner.Pruner, "_bury", bury)]


@_bug
def a_pin_is_looked_for_only_before() -> list[Change]:
    """Once a deletion has begun, nobody looks whether the checkpoint has been pinned meanwhile."""
    return [(Recovery, "_put_back", lambda *args: False)]


@_bug
def a_pin_is_granted_without_a_second_look() -> list[Change]:
    """Whoever pins does not look whether the checkpoint is still there."""
    original = holding._state

    def place(storage, directory, hold, path):
        if original(storage, directory, hold.name) is None:
            raise ConfigurationError("there is none")
        storage.make_directory(layout.holds_folder(directory))
        storage.write(path, holds.render(hold), durable=True)

    return [(holding, "_place", place)]


@_bug
def retention_keeps_the_oldest() -> list[Change]:
    """The newest checkpoints are those that are given up."""

    def keep_newest(count):
        def rule(so_far):
            return dataclasses.replace(
                so_far, active=so_far.active[:count], victims=so_far.active[count:]
            )

        return rule

    return [(retention, "keep_newest", keep_newest)]


@_bug
def recovery_takes_a_committed_one_back() -> list[Change]:
    """A chief that died after the commit is taken for one that died before."""

    def complete(self, current, files, folder):
        files.remove_manifest("back.json")
        self._take_back(current, None, files)

    return [(Recovery, "_complete", complete)]


@_bug
def temporary_files_stay() -> list[Change]:
    """What a dead chief was writing lies about for ever."""
    return [(Recovery, "remove_temporaries", _nothing)]


# --- Reading ------------------------------------------------------------------------------------


@_bug
def an_error_of_the_storage_counts_as_damage() -> list[Change]:
    """A hiccup while reading makes all workers take an older checkpoint."""
    return [(patient, "PATIENCE", 0.0)]


@_bug
def a_changing_checkpoint_counts_as_damaged() -> list[Change]:
    """One that another job saves again while it is verified makes all take an older one."""
    return [(RestoreSession, "_crc", _nothing)]


@_bug
def the_first_checkpoint_is_forgotten() -> list[Change]:
    """Without TensorFlow's file, what is older than the reader counts as not managed."""
    original = catalog.Catalog.view

    def view(self, now):
        seen = original(self, now)
        if self._state(self._pointer_data()) is None:
            return dataclasses.replace(seen, last_preserved=now - 1.0)
        return seen

    return [(catalog.Catalog, "view", view)]
