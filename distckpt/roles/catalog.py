"""What is in a directory: which checkpoints are committed, which is newest, what retention manages.

Reads and never writes; any process may call it. Commitment is the manifest's presence. TensorFlow's
`checkpoint` file adds what plain TensorFlow knows (the active set, its timestamps), and brings in
checkpoints that plain TensorFlow wrote. The file may lag behind the manifests, when a chief died
between the two; then the manifests win. Each says which file its commit found, so no clock is
needed to tell whether plain TensorFlow has written it since.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable

import google_crc32c

from distckpt.core import bundle, checkpoint_state, layout, retention
from distckpt.core.checkpoint_state import CheckpointState
from distckpt.core.manifest import Manifest, Pointer
from distckpt.core.retention import Kept
from distckpt.errors import CheckpointDamagedError, DistckptError, ManifestError, RestoreError
from distckpt.roles import notes
from distckpt.roles.checkpoint_files import read_manifest
from distckpt.roles.patient import Reader

_log = logging.getLogger("distckpt")


@dataclasses.dataclass(frozen=True)
class View:
    """A directory at one moment.

    Attributes:
      active: The checkpoints that retention manages, oldest first. All are whole.
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
      brief: For a look at one moment: manifests come without their tensors, and each is read once.
    """

    def __init__(self, storage: Reader, directory: str, *, brief: bool = False) -> None:
        self._storage = storage
        self._directory = directory
        self._read: dict[str, Manifest | None] | None = {} if brief else None
        self._said: set[str] = set()

    def view(self, now: float) -> View:
        """Returns the directory as it stands.

        Args:
          now: The time, in seconds since 1970: timestamps beyond it are cut back to it.

        Raises:
          OSError: The directory cannot be read.
        """
        listing = layout.classify(self._names(self._directory))
        data = self._pointer_data()
        state = self._state(data)
        recovered = retention.recover(state, now)
        if recovered.clock_went_back is not None:
            _log.warning(
                "The clock is %.0f s behind the time of the last preserved checkpoint in %s; "
                "timestamps of checkpoints are cut back to now.",
                recovered.clock_went_back,
                self._directory,
            )
        quarantined = self.quarantined()
        whole = {n for n, c in listing.checkpoints.items() if c.has_index} - quarantined.keys()
        committed = {n for n, c in listing.checkpoints.items() if c.has_manifest and n in whole}
        newer = self._newer_than_listed(committed, state, data)
        outdated = {m.name for m in newer}
        active = [k for k in recovered.active if k.name in whole - outdated]
        times = [min(m.committed_at, now) for m in newer]
        last_preserved = recovered.last_preserved
        if state is None:  # the first chief died before it wrote the file: its time counts, too
            last_preserved = min([last_preserved, *(t - 1.0 for t in times)])
        # What is not later than that, the next manager would take for none of its own.
        later = math.nextafter(last_preserved, math.inf)
        active += [Kept(m.name, max(t, later)) for m, t in zip(newer, times, strict=True)]
        latest = newer[-1].name if newer else recovered.latest
        if latest not in whole:
            latest = active[-1].name if active else None
        return View(tuple(active), latest, last_preserved)

    def candidates(self, now: float) -> list[str]:
        """Returns the names of checkpoints to try to restore, newest first.

        Those that the directory's `View` manages come first, then other committed ones (kept by
        ``keep_checkpoint_every_n_hours``), by their order of commit.

        Raises:
          RestoreError: There are none, although TensorFlow's file names one.
          OSError: The directory cannot be read.
        """
        state = self._state(self._pointer_data())  # first: what it names must be there then
        view = self.view(now)
        names = [k.name for k in reversed(view.active)]
        if view.latest is not None:
            names = [view.latest, *(n for n in names if n != view.latest)]
        listing = layout.classify(self._names(self._directory))
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
        """Speaks up: what TensorFlow's file names as the newest is not among `names`.

        Silence would mean to train from the beginning where TensorFlow would restore, or fail.
        """
        path = layout.join(self._directory, layout.POINTER_FILE)
        why = self.quarantined().get(latest, "there is no such checkpoint in its directory")
        if names:
            _log.warning("%s names %s, but %s; trying others.", path, latest, why)
            return
        raise RestoreError(
            f"{path} names {latest!r} as the newest checkpoint, but {why}. If it is "
            "elsewhere, restore it from there, with `tf.train.Checkpoint.restore`. To train from "
            "the beginning, remove that file."
        )

    def manifest(self, name: str) -> Manifest | None:
        """Returns the manifest in force of checkpoint `name`; None if it has none.

        It has none, either, when plain TensorFlow has written a checkpoint of that name since: then
        the index is whole, which its own checksums tell, and another one.

        Raises:
          ManifestError: The manifest is damaged or too new, or the index is damaged.
          CheckpointDamagedError: The index is missing.
        """
        path = layout.join(self._directory, layout.manifest_name(name))
        try:
            manifest = self._read_manifest(name)
        except OSError as error:
            raise CheckpointDamagedError(f"{path} cannot be read: {error}") from error
        if manifest is None:
            return None
        try:
            return manifest.in_force(self.index_crc32c(name))
        except ManifestError:
            if not self._is_whole_index(name):
                raise
            return None

    def _read_manifest(self, name: str) -> Manifest | None:
        if self._read is None:
            return read_manifest(self._storage, self._directory, name)
        if name not in self._read:
            found = read_manifest(self._storage, self._directory, name, entries=False)
            self._read[name] = found
        return self._read[name]

    def _is_whole_index(self, name: str) -> bool:
        path = layout.join(self._directory, layout.index_name(name))
        try:
            bundle.read_index(self._storage.read(path))
        except (OSError, CheckpointDamagedError):
            return False
        return True

    def index_crc32c(self, name: str) -> int:
        """Returns the CRC32C of the index file of `name`.

        Raises:
          CheckpointDamagedError: It is missing or cannot be read.
        """
        path = layout.join(self._directory, layout.index_name(name))
        try:
            return int(google_crc32c.value(self._storage.read(path)))
        except OSError as error:
            raise CheckpointDamagedError(f"{path} cannot be read: {error}") from error

    def quarantined(self) -> dict[str, str]:
        """Returns the checkpoints that failed to restore: name → why.

        A note holds as long as the files are those that it was written about.
        """
        folder = layout.quarantine_folder(self._directory)
        return notes.read(self._storage, folder, self.index_crc32c)

    def verified(self) -> dict[str, str]:
        """Returns the checkpoints of which every byte was found right: name → when, and by whom."""
        folder = layout.verified_folder(self._directory)
        return notes.read(self._storage, folder, self.index_crc32c)

    def pointer(self) -> Pointer | None:
        """Returns what a checkpoint that is committed now follows; None without TensorFlow's file.

        Raises:
          OSError: The file cannot be read.
        """
        data = self._pointer_data()
        return self._followed(data, self._state(data)) if data else None

    def _followed(self, data: bytes, state: CheckpointState | None) -> Pointer:
        crc32c = int(google_crc32c.value(data))
        if state is None or state.timestamps:
            return Pointer(crc32c)
        try:  # the file may name one elsewhere, or anything: nothing outside is read on its word
            index_crc32c = self.index_crc32c(layout.safe_name(state.latest))
        except CheckpointDamagedError:
            return Pointer(crc32c)
        for latest in self._readable([state.latest]):
            if latest.follows is not None and latest.follows.crc32c == crc32c:
                return latest.follows  # it has replaced the one that the file means
        return Pointer(crc32c, index_crc32c)

    def _newer_than_listed(
        self, committed: set[str], state: CheckpointState | None, data: bytes
    ) -> list[Manifest]:
        """Returns the manifests that TensorFlow's file does not know of yet, oldest first.

        Those are the ones that were committed when it was as it is now: who died, or failed to
        write it, after a commit leaves it so, and so do all that come after him. A program that
        writes it, TensorFlow above all, makes another file of it.
        """
        found = sorted(self._readable(sorted(committed)), key=lambda m: m.order)
        if state is None:
            return found
        now = self._followed(data, state)
        latest = next((m for m in found if m.name == state.latest), None)
        if latest is None:  # plain TensorFlow wrote it
            return [m for m in found if m.follows == now]
        # The newest that the file names may itself have been saved again since.
        again = latest.follows == now
        return [m for m in found if m.order > latest.order or (again and m.follows == now)]

    def longest_save(self, names: Iterable[str]) -> float | None:
        """Returns how long the slowest of these saves took, in seconds; None if nothing says."""
        return max((manifest.seconds for manifest in self._readable(list(names))), default=None)

    def _readable(self, names: list[str]) -> list[Manifest]:
        """Returns the manifests of those of `names` that can be read."""
        found = []
        for name in names:
            try:
                manifest = self.manifest(name)
            except DistckptError as error:
                self._warn(f"{name} is left out: {error}")
                continue
            if manifest is not None:
                found.append(manifest)
        return found

    def _warn(self, text: str) -> None:
        """Logs a warning, once: a directory is read more often than people want to hear of it."""
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text)

    def _pointer_data(self) -> bytes:
        return self._read_or_empty(layout.join(self._directory, layout.POINTER_FILE))

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
        """Returns the name of a checkpoint that TensorFlow's file gives by its path."""
        prefix = layout.join(self._directory, "")
        name = path[len(prefix) :] if path.startswith(prefix) else path
        return name.removeprefix("./")

    def _names(self, folder: str) -> list[str]:
        try:
            return self._storage.list(folder)
        except NotADirectoryError:
            return []  # nothing to read there; saving will say what is wrong

    def _read_or_empty(self, path: str) -> bytes:
        try:
            return self._storage.read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return b""
