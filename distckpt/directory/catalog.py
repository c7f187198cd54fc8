"""Tells which checkpoints of a directory are committed, managed by retention, and newest.

Reads and never writes; any process may call it. A checkpoint is committed if its manifest exists.
TensorFlow's `checkpoint` file adds what plain TensorFlow knows (the active set, its timestamps) and
the checkpoints that plain TensorFlow wrote. The file may lag behind the manifests if a chief died
between writing the two; then the manifests count. Each manifest identifies the file that its commit
found, so no clock is needed to tell whether plain TensorFlow has written the file since.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import google_crc32c

from distckpt.core import layout, listings, rollback_record, safe_names, tf_retention
from distckpt.core.listings import Listing
from distckpt.core.manifest import Head, Manifest, Pointer
from distckpt.core.rollback_record import Leaving, Rollback
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.core.tf_retention import Kept
from distckpt.directory import verification_notes
from distckpt.directory.checkpoint_files import is_whole_index, read_head, read_manifest
from distckpt.directory.read_once import read_once
from distckpt.errors import (
    CheckpointDamagedError,
    DirectoryError,
    DistckptError,
    ManifestError,
    RestoreError,
    reason,
)
from distckpt.storage.lenient_reads import content_of, names_in
from distckpt.storage.retrying_reader import Reader, RetryingReader

_Head = TypeVar("_Head", bound=Head)
_log = logging.getLogger("distckpt")


@dataclasses.dataclass(frozen=True)
class View:
    """A directory at one moment.

    Attributes:
      active: The checkpoints that retention manages, oldest first. All are complete.
      latest: Name of the newest checkpoint, or None.
      last_preserved: As in TensorFlow's `checkpoint` file, seconds since 1970.
    """

    active: tuple[Kept, ...]
    latest: str | None
    last_preserved: float


class Catalog:
    """Reads one directory.

    Args:
      storage: Where it is.
      directory: Its path.
      brief: For a single look: everything is read only once, and manifests without their tensors.
      warns: Whether to log which checkpoints are left out because they are damaged.
    """

    def __init__(
        self, storage: Reader, directory: str, *, brief: bool = False, warns: bool = True
    ) -> None:
        self._storage = storage
        self._directory = directory
        self.memory: dict[object, Any] | None = {} if brief else None
        self._warns = warns
        self._said: set[str] = set()

    @classmethod
    def for_a_look(cls, storage: Reader, directory: str) -> Catalog:
        """Returns a brief catalog that retries failed reads and logs nothing of what it finds."""
        return cls(RetryingReader(storage), directory, brief=True, warns=False)

    def view(self, now: float) -> View:
        """Returns the current view of the directory.

        Args:
          now: The time, in seconds since 1970: later timestamps are set to it.

        Raises:
          OSError: The directory cannot be read.
        """
        return self._view(now, damaged=False)

    def _view(self, now: float, *, damaged: bool) -> View:
        """See `view`; with `damaged`, includes listed checkpoints with damaged manifests."""
        listing = self.listing()
        data = self._pointer_data()
        state = self._state(data)
        recovered = tf_retention.recover(state, now)
        if recovered.clock_went_back is not None:
            _log.warning(
                "The clock is %.0f s behind the time of the last preserved checkpoint in %s; "
                "later timestamps of checkpoints are set to now.",
                recovered.clock_went_back,
                self._directory,
            )
        quarantined = self.quarantined()
        whole = {n for n, c in listing.checkpoints.items() if c.has_index} - quarantined.keys()
        committed = {n for n, c in listing.checkpoints.items() if c.has_manifest and n in whole}
        sound = self._sound(sorted(committed))
        if not damaged:
            whole -= committed - sound.keys()
        newer = self._newer_than_listed(sound, state, data)
        outdated = {m.name for m in newer}
        active = [k for k in recovered.active if k.name in whole - outdated]
        times = [min(m.committed_at, now) for m in newer]
        last_preserved = recovered.last_preserved
        if state is None:  # the first chief died before it wrote the file: its commits count, too
            last_preserved = min([last_preserved, *(t - 1.0 for t in times)])
        # The next manager would not manage a checkpoint that is not later than that.
        later = math.nextafter(last_preserved, math.inf)
        active += [Kept(m.name, max(t, later)) for m, t in zip(newer, times, strict=True)]
        latest = newer[-1].name if newer else recovered.latest
        if latest not in whole:
            latest = active[-1].name if active else None
        return View(tuple(active), latest, last_preserved)

    @read_once
    def listing(self) -> Listing:
        """Returns what is in the directory. Raises OSError if it cannot be read."""
        if self.memory is not None:
            self._pointer_data()  # read first: what it names must exist in the listing
        return listings.classify(names_in(self._storage, self._directory))

    def named(self) -> frozenset[str] | None:
        """Returns what TensorFlow's file names, whether it exists or not; None without the file."""
        state = self._state(self._pointer_data())
        return None if state is None else frozenset((state.latest, *state.paths))

    def candidates(self, now: float) -> list[str]:
        """Returns the names of checkpoints to try to restore, newest first.

        The checkpoints that the directory's `View` manages come first. They include checkpoints
        with damaged manifests, which a restore reports and skips. Other committed checkpoints
        follow (kept by ``keep_checkpoint_every_n_hours``), by their order of commit.

        Raises:
          RestoreError: There are none, although TensorFlow's file names one.
          OSError: The directory cannot be read.
        """
        state = self._state(self._pointer_data())  # read first: what it names must exist afterwards
        view = self._view(now, damaged=True)
        names = [k.name for k in reversed(view.active)]
        if view.latest is not None:
            names = [view.latest, *(n for n in names if n != view.latest)]
        listing = self.listing()
        quarantined = self.quarantined()
        rest = [
            n
            for n, c in listing.checkpoints.items()
            if c.has_manifest and c.has_index and n not in names and n not in quarantined
        ]
        others = sorted(self._readable(rest), key=lambda m: m.order, reverse=True)
        names += [m.name for m in others]
        if state is not None and state.latest not in names:
            self._miss(state.latest, names)
        return names

    def _miss(self, latest: str, names: list[str]) -> None:
        """Reports that the newest checkpoint in TensorFlow's file is not among `names`.

        Otherwise the job would train from the beginning where TensorFlow would restore, or fail.
        """
        path = layout.join(self._directory, layout.POINTER_FILE)
        index = layout.index_name(latest.rpartition("/")[2])
        why = self.quarantined().get(latest, f"there is no {index} in its directory")
        if names:
            _log.warning("%s names %s, but %s.", path, latest, why)
            return
        raise RestoreError(
            f"{path} names {latest!r} as the newest checkpoint, but {why}. If it is "
            "elsewhere, restore it from there, with `tf.train.Checkpoint.restore`. To train from "
            "the beginning, remove that file."
        )

    @read_once
    def manifest(self, name: str) -> Manifest | None:
        """Returns the manifest in force of checkpoint `name`; None if it has none.

        The manifest does not count if plain TensorFlow has written a checkpoint of that name since:
        then the index is another one and intact, as its own checksums show.

        Raises:
          ManifestError: The manifest is damaged or too new, or the index is damaged.
          CheckpointDamagedError: The index is missing.
        """
        entries = self.memory is None
        return self._in_force(
            name, lambda: read_manifest(self._storage, self._directory, name, entries=entries)
        )

    @read_once
    def head(self, name: str) -> Head | None:
        """Does what `manifest` does, but for damage of the rest of a large manifest."""
        if self.memory is not None:
            return self.manifest(name)  # whose files are looked at, too
        return self._in_force(name, lambda: read_head(self._storage, self._directory, name))

    def _in_force(self, name: str, read: Callable[[], _Head | None]) -> _Head | None:
        try:
            found = read()
        except OSError as error:
            path = layout.join(self._directory, layout.manifest_name(name))
            raise CheckpointDamagedError(f"{path} cannot be read: {reason(error)}.") from error
        if found is None:
            return None
        try:
            return cast("_Head | None", found.in_force(self.index_crc32c(name)))
        except ManifestError:
            if not is_whole_index(self._storage, self._directory, name):
                raise
            return None

    def index_crc32c(self, name: str) -> int:
        """Returns the CRC32C of the index file of `name`.

        Raises:
          CheckpointDamagedError: It is missing or cannot be read.
        """
        path = layout.join(self._directory, layout.index_name(name))
        try:
            return int(google_crc32c.value(self._storage.read(path)))
        except OSError as error:
            raise CheckpointDamagedError(f"{path} cannot be read: {reason(error)}.") from error

    @read_once
    def quarantined(self) -> dict[str, str]:
        """Returns the checkpoints that failed to restore or are being set aside: name → reason.

        A note counts as long as the files it was written about are unchanged.
        """
        folder = layout.quarantine_folder(self._directory)
        return {
            **verification_notes.read(self._storage, folder, self.index_crc32c),
            **self.leaving(),
        }

    def rollback(self) -> Rollback | None:
        """Returns the unfinished rollback; None if there is none."""
        path = layout.rollback_path(self._directory)
        data = content_of(self._storage, path)
        try:
            return rollback_record.parse(data, path) if data else None
        except DirectoryError as error:
            self._warn(str(error))
            return None

    def leaving(self) -> dict[str, str]:
        """Returns the checkpoints that an unfinished rollback is setting aside: name → reason."""
        begun = self.rollback()
        if begun is None:
            return {}
        why = (
            f"it is being set aside by a rollback to {begun.to}, which is unfinished. The next "
            "save, `distckpt rollback` or `distckpt gc` finishes it"
        )
        return {one.name: why for one in begun.leaving if self._is_index_of(one)}

    def _is_index_of(self, one: Leaving) -> bool:
        try:
            return self.index_crc32c(one.name) == one.index_crc32c
        except CheckpointDamagedError:
            return True

    def verified(self) -> dict[str, str]:
        """Returns the checkpoints of which every byte was verified: name → when, and by whom."""
        folder = layout.verified_folder(self._directory)
        return verification_notes.read(self._storage, folder, self.index_crc32c)

    def pointer(self) -> Pointer | None:
        """Returns the pointer that a commit follows now; None without TensorFlow's file.

        Raises:
          OSError: The file cannot be read.
        """
        data = self._pointer_data()
        return self._followed(data, self._state(data)) if data else None

    def _followed(self, data: bytes, state: CheckpointState | None) -> Pointer:
        crc32c = int(google_crc32c.value(data))
        if state is None or state.timestamps:
            return Pointer(crc32c)
        try:  # the file may name anything: never read outside the directory because of it
            index_crc32c = self.index_crc32c(safe_names.safe_name(state.latest))
        except CheckpointDamagedError:
            return Pointer(crc32c)
        for latest in self._readable([state.latest]):
            if latest.follows is not None and latest.follows.crc32c == crc32c:
                return latest.follows  # it has replaced the version that the file means
        return Pointer(crc32c, index_crc32c)

    def set_back(self, restored: str) -> str | None:
        """Returns the older checkpoint that TensorFlow's file names as the newest, or None.

        After a chief has died right after its commit, the file names an older checkpoint, too. That
        does not count: the file is then still as the commit found it.

        Args:
          restored: The restored checkpoint.

        Raises:
          OSError: The file cannot be read.
        """
        data = self._pointer_data()
        state = self._state(data)
        if state is None or state.latest == restored:
            return None
        found = {m.name: m for m in self._readable([state.latest, restored])}
        named, newer = found.get(state.latest), found.get(restored)
        if named is None or newer is None or named.order > newer.order:
            return None
        return None if newer.follows == self._followed(data, state) else named.name

    def _newer_than_listed(
        self, sound: Mapping[str, Head | None], state: CheckpointState | None, data: bytes
    ) -> list[Head]:
        """Returns the heads of checkpoints that TensorFlow's file lacks, oldest first.

        They were committed while the file was as it is now: a chief that died or failed before
        writing it left it unchanged, and so did all later chiefs. Any program that writes the
        file, TensorFlow above all, changes it.
        """
        found = sorted(filter(None, sound.values()), key=lambda m: m.order)
        if state is None:
            return found
        now = self._followed(data, state)
        latest = next((m for m in found if m.name == state.latest), None)
        if latest is None:  # plain TensorFlow wrote it
            return [m for m in found if m.follows == now]
        # The newest checkpoint in the file may itself have been saved again since.
        again = latest.follows == now
        return [m for m in found if m.order > latest.order or (again and m.follows == now)]

    def longest_save(self, names: Iterable[str]) -> float | None:
        """Returns how long the slowest of these saves took, in seconds; None if unknown."""
        return max((manifest.seconds for manifest in self._readable(list(names))), default=None)

    def _readable(self, names: list[str]) -> list[Head]:
        """Returns the readable heads of manifests of `names`."""
        return [manifest for manifest in self._sound(names).values() if manifest is not None]

    def _sound(self, names: list[str]) -> dict[str, Head | None]:
        """Returns the undamaged checkpoints of `names` with the heads of their manifests."""
        found = {}
        for name in names:
            try:
                found[name] = self.head(name)
            except DistckptError as error:
                if self._warns:
                    self._warn(f"{name} is left out: {error}")
        return found

    def _warn(self, text: str) -> None:
        """Logs a warning only once, since a directory is read often."""
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text)

    @read_once
    def _pointer_data(self) -> bytes:
        begun = self.rollback()  # read first: once it is gone, TensorFlow's file is new
        data = content_of(self._storage, layout.join(self._directory, layout.POINTER_FILE))
        return begun.pointer_after(data) if begun is not None else data

    @read_once
    def _state(self, data: bytes) -> CheckpointState | None:
        if not data:
            return None
        try:
            state = checkpoint_state.parse(data)
        except CheckpointDamagedError as error:
            self._warn(f"{error} The manifests are used instead.")
            return None
        return dataclasses.replace(
            state, latest=self._name(state.latest), paths=tuple(map(self._name, state.paths))
        )

    def _name(self, path: str) -> str:
        return layout.name_of_path(self._directory, path)
