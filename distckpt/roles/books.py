"""The list of managed checkpoints: in memory on every worker, in TensorFlow's file by the chief."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Sequence

from distckpt.core import checkpoint_state, layout, retention
from distckpt.core.checkpoint_state import CheckpointState
from distckpt.core.manifest import Manifest
from distckpt.core.messages import Outcome
from distckpt.roles import host
from distckpt.roles.catalog import Catalog, View
from distckpt.roles.patient import PatientReader
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Books:
    """What one manager knows of its directory.

    Reading it is for every process; `record` and `prune` are the chief's, after a commit.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      max_to_keep: As in `tf.train.CheckpointManager`.
      keep_every_hours: As ``keep_checkpoint_every_n_hours`` there.
      delete: The chief's pruner; None on the others.
      durable: Whether TensorFlow's file is forced to stable storage.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        max_to_keep: int | None,
        keep_every_hours: float | None,
        *,
        durable: bool,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._max_to_keep = max_to_keep
        self._keep_every_hours = keep_every_hours
        self._durable = durable
        self._catalog = Catalog(PatientReader(storage), directory)
        self._damaged: dict[str, tuple[int | None, str]] = {}
        self._pointer_is_true = True
        self.delete: Callable[[list[str]], frozenset[str]] | None = None
        self._seen_at = host.now()
        self._seen = self._catalog.view(self._seen_at)
        self._take_over(self._seen)

    def reload(self) -> None:
        """Reads the directory again, if it is not as it was at the construction.

        If it is, the times stay, too: TensorFlow counts ``keep_checkpoint_every_n_hours`` from the
        construction of the manager, not from its first save.
        """
        if self._catalog.view(self._seen_at) != self._seen:
            self._take_over(self._catalog.view(host.now()))

    def _take_over(self, view: View) -> None:
        self.active = tuple(k for k in view.active if k.name not in self._damaged)
        self.latest = view.latest
        if self.latest in self._damaged:
            self.latest = self.active[-1].name if self.active else None
        self.last_preserved = view.last_preserved

    def quarantine(self, name: str, index_crc32c: int | None, reason: str) -> None:
        """Takes a damaged checkpoint off the list. The note on disk comes with the next `record`.

        Restoring never writes: another process may be saving there.
        """
        self._damaged[name] = (index_crc32c, reason)
        self.active = tuple(k for k in self.active if k.name != name)
        if self.latest == name:
            self.latest = self.active[-1].name if self.active else None

    def record(self, manifest: Manifest, folder: str) -> None:
        """Puts a committed checkpoint on the list, as the newest. Never raises.

        Args:
          manifest: The checkpoint.
          folder: Path of the attempt's pending folder, from which TensorFlow's file is renamed: a
            chief that has been replaced finds it gone, and leaves its successor's file alone.
        """
        self._damaged.pop(manifest.name, None)
        self.active = retention.record(self.active, manifest.name, host.now())
        self.latest = manifest.name
        self._write_notes()
        self._write_pointer(folder)

    def prune(self, folder: str) -> None:
        """Lets retention decide and deletes. Never raises. `folder` as for `record`.

        TensorFlow's file is written before anything is deleted and again after, as TensorFlow does.
        While it cannot be written, nothing is deleted: it would name what is not there.
        """
        if not self._may_delete or self.delete is None:
            return
        decided = self._sweep()
        self.last_preserved = decided.last_preserved
        still = self.delete([k.name for k in decided.victims])
        self.active = (*(k for k in decided.victims if k.name in still), *decided.active)
        if decided.victims or decided.preserved:
            self._write_pointer(folder)

    def outcome(self, name: str) -> Outcome:
        """Returns what the other workers must know of a commit: the list as `prune` will leave it.

        They do not wait for that. What then cannot be deleted, only the chief keeps on its list.
        """
        if not self._may_delete:
            return self.standing(name)
        decided = self._sweep()
        return Outcome(None, name, _pairs(decided.active), decided.last_preserved)

    def standing(self, name: str | None) -> Outcome:
        """Returns what the other workers must know when nothing was saved: the list as it is."""
        return Outcome(None, name, _pairs(self.active), self.last_preserved)

    def adopt(self, outcome: Outcome) -> None:
        """Takes over the chief's list."""
        self.active = tuple(retention.Kept(n, t) for n, t in outcome.active)
        self.last_preserved = outcome.last_preserved
        self.latest = outcome.name

    @property
    def _may_delete(self) -> bool:
        return self._pointer_is_true and self.delete is not None

    def _sweep(self) -> retention.Sweep:
        return retention.sweep(
            self.active, self._max_to_keep, self._keep_every_hours, self.last_preserved
        )

    def _write_pointer(self, folder: str) -> None:
        state = CheckpointState(
            latest=self.latest or "",
            paths=tuple(k.name for k in self.active),
            timestamps=tuple(k.timestamp for k in self.active),
            last_preserved=self.last_preserved,
        )
        path = layout.join(self._directory, layout.POINTER_FILE)
        staged = layout.join(folder, layout.POINTER_FILE)
        try:
            self._storage.write(staged, checkpoint_state.render(state), durable=self._durable)
            self._check_is_there(folder, staged)
            self._storage.rename(staged, path)
            if self._durable:
                self._storage.flush_directory(self._directory)
            self._pointer_is_true = True
        except OSError as error:
            self._pointer_is_true = False
            _log.warning(
                "%s is committed, but %s could not be written (%s): plain TensorFlow still finds "
                "the checkpoint before it. Nothing is deleted until it can be written.",
                self.latest,
                path,
                error,
            )

    def _check_is_there(self, folder: str, staged: str) -> None:
        """Makes sure that `staged` has not brought back a folder that a successor has moved away.

        Then the probe is not in it. See `Storage.has_folders`.
        """
        if self._storage.has_folders or layout.PROBE_FILE in self._storage.list(folder):
            return
        self._storage.remove(staged)
        raise FileNotFoundError(errno.ENOENT, "another process has moved it away", folder)

    def _write_notes(self) -> None:
        folder = layout.quarantine_folder(self._directory)
        for name, (index_crc32c, reason) in self._damaged.items():
            note = {"name": name, "index_crc32c": index_crc32c, "reason": reason}
            try:
                self._storage.make_directory(folder)
                path = layout.join(folder, layout.note_name(name))
                self._storage.write(path, json.dumps(note).encode(), durable=self._durable)
            except OSError as error:
                _log.warning("No note of the damage of %s could be written: %s", name, error)


def _pairs(active: Sequence[retention.Kept]) -> tuple[tuple[str, float], ...]:
    return tuple((kept.name, kept.timestamp) for kept in active)
