"""The list of managed checkpoints: in memory on every worker, in TensorFlow's file by the chief."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence

from distckpt.core import checkpoint_state, layout, retention
from distckpt.core.checkpoint_state import CheckpointState
from distckpt.core.manifest import Manifest, Retention
from distckpt.core.messages import Outcome
from distckpt.errors import DistckptError
from distckpt.keep import Checkpoint, KeepPolicy
from distckpt.roles import host, notes
from distckpt.roles.catalog import Catalog, View
from distckpt.roles.holds import Holds
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
      durable: Whether TensorFlow's file is forced to stable storage.
      keep: What else to keep.

    Attributes:
      active: The managed checkpoints, oldest first.
      latest: Name of the newest checkpoint, or None.
      last_preserved: As in TensorFlow's `checkpoint` file, seconds since 1970.
      delete: The chief's pruner; None on the others.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        max_to_keep: int | None,
        keep_every_hours: float | None,
        *,
        durable: bool,
        keep: KeepPolicy | None = None,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._max_to_keep = max_to_keep
        self._keep_every_hours = keep_every_hours
        self._durable = durable
        self._keep = keep
        self._holds = Holds(storage, directory)
        self._facts: dict[str, Checkpoint] = {}  # what the policy wants to know
        self._verified: dict[str, int] = {}  # index checksums; for the next `record` to write down
        self._decided: retention.Sweep | None = None
        self._catalog = Catalog(PatientReader(storage), directory)
        self._damaged: dict[str, tuple[int | None, str]] = {}
        self._pointer_is_true = True
        self.delete: Callable[[list[str]], frozenset[str]] | None = None
        self._seen_at = host.now()
        self._seen = self._catalog.view(self._seen_at)
        self._take_over(self._seen)

    @property
    def rules(self) -> Retention:
        """What is kept, as manifests say it."""
        text = "" if self._keep is None else repr(self._keep)
        return Retention(self._max_to_keep, self._keep_every_hours, text)

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
        self._facts.clear()

    def verified(self, name: str, index_crc32c: int) -> None:
        """Remembers that all of a checkpoint was found right; noted on disk with the next `record`.

        Nobody asks for such notes but a policy.
        """
        if self._keep is not None:
            self._verified[name] = index_crc32c
            self._facts.pop(name, None)

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
        self._facts.pop(manifest.name, None)
        self._verified.pop(manifest.name, None)
        self.active = retention.record(self.active, manifest.name, host.now())
        self.latest = manifest.name
        self._write_notes()
        self._write_pointer(folder)

    def prune(self, folder: str) -> tuple[str, ...]:
        """Lets retention decide and deletes. Never raises. `folder` as for `record`.

        TensorFlow's file is written before anything is deleted and again after, as TensorFlow does.
        While it cannot be written, nothing is deleted: it would name what is not there.

        Returns:
          The names of what is deleted.
        """
        if not self._may_delete or self.delete is None:
            return ()
        decided, self._decided = self._decided or self.decide(), None
        self.last_preserved = decided.last_preserved
        still = self.delete([k.name for k in decided.victims])
        self.active = (*(k for k in decided.victims if k.name in still), *decided.active)
        if decided.victims or decided.preserved:
            self._write_pointer(folder)
        return tuple(k.name for k in decided.victims if k.name not in still)

    def decide(self) -> retention.Sweep:
        """Returns what retention decides now. Deletes nothing. Any process."""
        most = self._max_to_keep
        if most is None and self._keep is not None:
            most = 1  # the policy decides
        return retention.sweep(
            self.active, most, self._keep_every_hours, self.last_preserved, self._spared()
        )

    def outcome(self, name: str) -> Outcome:
        """Returns what the other workers must know of a commit: the list as `prune` will leave it.

        They do not wait for that. What then cannot be deleted, only the chief keeps on its list.
        """
        if not self._may_delete:
            return self.standing(name)
        self._decided = decided = self.decide()
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

    def _spared(self) -> set[str]:
        """Returns what must stay. If that cannot be told: all."""
        try:
            held = set(self._holds.held())
            if self._keep is None:
                return held
            facts = [self._fact(kept) for kept in self.active]
            return held | set(self._keep.reasons(facts, host.now()))
        except Exception as error:  # of a policy of the user's own: anything
            _log.warning("Nothing is deleted, for it cannot be told what is to stay: %r", error)
            return {kept.name for kept in self.active}

    def _fact(self, kept: retention.Kept) -> Checkpoint:
        """Returns what a policy may know of a checkpoint; it is read once."""
        if kept.name not in self._facts:
            try:
                manifest = self._catalog.manifest(kept.name)
            except DistckptError:
                manifest = None  # the catalog has warned of it
            verified = kept.name in self._verified or kept.name in self._catalog.verified()
            self._facts[kept.name] = retention.facts(kept, manifest, verified=verified)
        return self._facts[kept.name]

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
        damaged = layout.quarantine_folder(self._directory)
        verified = layout.verified_folder(self._directory)
        for name, (index_crc32c, reason) in self._damaged.items():
            self._write_note(damaged, name, index_crc32c, reason)
        who = f"restored on {host.name()} (pid {host.pid()})"
        for name, index_crc32c in self._verified.items():
            self._write_note(verified, name, index_crc32c, who)
        self._verified.clear()

    def _write_note(self, folder: str, name: str, index_crc32c: int | None, why: str) -> None:
        try:
            notes.write(self._storage, folder, name, index_crc32c, why, durable=self._durable)
        except OSError as error:
            _log.warning("The note in %s on %s could not be written: %s", folder, name, error)


def _pairs(active: Sequence[retention.Kept]) -> tuple[tuple[str, float], ...]:
    return tuple((kept.name, kept.timestamp) for kept in active)
