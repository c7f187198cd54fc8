"""The list of managed checkpoints: in memory on every worker, in TensorFlow's file by the chief."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from distckpt.core import layout, tf_retention
from distckpt.core.manifest import Commit, Manifest, Retention
from distckpt.core.protocol.messages import Outcome
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.directory import verification_notes
from distckpt.directory.catalog import Catalog, View
from distckpt.directory.checkpoint_state_file import CheckpointStateFile
from distckpt.directory.holds import Holds
from distckpt.directory.replacement_warning import ReplacementWarning
from distckpt.errors import CheckpointDamagedError, ConfigurationError, DistckptError
from distckpt.keep import Checkpoint, KeepPolicy, check_metrics
from distckpt.runtime import host
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader

_log = logging.getLogger("distckpt")
Delete = Callable[[list[str], Commit | None, Sequence[str] | None], frozenset[str]]


class ManagedCheckpoints:
    """One manager's list of managed checkpoints, and what it knows of its directory.

    Every process may read it; `record` and `prune` are the chief's, after a commit.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      max_to_keep: As in `tf.train.CheckpointManager`.
      keep_every_hours: As ``keep_checkpoint_every_n_hours`` there.
      durable: Whether TensorFlow's file is forced to stable storage.
      keep: The policy that decides what else to keep.

    Attributes:
      active: The managed checkpoints, oldest first.
      latest: Name of the newest checkpoint, or None.
      last_preserved: As in TensorFlow's `checkpoint` file, seconds since 1970.
      delete: The chief's pruner; None on the other workers.
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
        self._facts: dict[str, Checkpoint] = {}  # for the policy
        self._verified: dict[str, int] = {}  # index checksums, which the next `record` writes
        self._decided: tf_retention.Sweep | None = None
        self._said: set[str] = set()
        self._catalog = Catalog(RetryingReader(storage), directory)
        self._replacing = ReplacementWarning(self._catalog, directory)
        self._damaged: dict[str, tuple[int | None, str]] = {}
        self._state_file = CheckpointStateFile(storage, directory, durable=durable)
        self._state_file_is_true = True
        self.delete: Delete | None = None
        self._names: Sequence[str] | None = None  # what the save that is in progress has found
        self._committed: Commit | None = None  # the last commit
        self.active: tuple[tf_retention.Kept, ...] = ()
        self._seen_at = host.now()
        self._seen = self._catalog.view(self._seen_at)
        self._take_over(self._seen)

    @property
    def rules(self) -> Retention:
        """The retention rules, as a manifest holds them."""
        text = "" if self._keep is None else repr(self._keep)
        return Retention(self._max_to_keep, self._keep_every_hours, text)

    def refresh(self, kind: str | None, anew: bool, names: Sequence[str] | None = None) -> None:
        """Drops vanished checkpoints from the list; with `anew`, reads the directory again.

        Args:
          kind: Limits new entries to checkpoints of this `checkpoint_name`, because other managers
            of this process save there, too, and manage their own; None for no limit.
          anew: Whether the process has just taken the directory, or a commit has failed.
          names: A listing of the directory as it is now, which the next `prune` uses, too. Without
            it, the directory is listed.

        Raises:
          OSError: The directory cannot be read.
        """
        self._names = None
        if anew and kind is None:
            self._reload()
            return
        self._names = self._storage.list(self._directory) if names is None else names
        there = set(self._names)
        active = [kept for kept in self.active if layout.index_name(kept.name) in there]
        if anew:
            self._damaged = {n: d for n, d in self._damaged.items() if self._is_still(n, d[0])}
            known = {kept.name for kept in active} | self._damaged.keys()
            for kept in self._catalog.view(host.now()).active:
                if layout.split_number(kept.name)[0] == kind and kept.name not in known:
                    active.append(kept)
        if tuple(active) != self.active:
            self.active = tuple(active)
            self.latest = active[-1].name if active else None
            self._facts.clear()

    def _reload(self) -> None:
        """Reads the directory again if it has changed since construction.

        Otherwise the times are kept, too: TensorFlow counts ``keep_checkpoint_every_n_hours`` from
        the construction of the manager, not from its first save.
        """
        if self._catalog.view(self._seen_at) != self._seen:
            self._take_over(self._catalog.view(host.now()))

    def _is_still(self, name: str, index_crc32c: int | None) -> bool:
        """Returns whether a checkpoint is still the damaged one."""
        try:
            return self._catalog.index_crc32c(name) == index_crc32c
        except CheckpointDamagedError:
            return index_crc32c is None

    def _take_over(self, view: View) -> None:
        self.active = tuple(k for k in view.active if k.name not in self._damaged)
        self.latest = view.latest
        if self.latest in self._damaged:
            self.latest = self.active[-1].name if self.active else None
        self.last_preserved = view.last_preserved
        self._facts.clear()

    def verified(self, name: str, index_crc32c: int) -> None:
        """Remembers that a checkpoint was verified; the next `record` notes it on disk.

        Only policies use such notes.
        """
        if self._keep is not None:
            self._verified[name] = index_crc32c
            self._facts.pop(name, None)

    def restored(self, name: str) -> None:
        """Remembers that a checkpoint has been restored."""
        self.latest = name
        self._replacing.restored(name)

    def begins(self, name: str) -> None:
        """Warns if the save that is about to begin replaces a good checkpoint. Never raises."""
        self._replacing.begins(name, self._damaged)

    def quarantine(self, name: str, index_crc32c: int | None, reason: str) -> None:
        """Takes a damaged checkpoint off the list. The next `record` writes the note on disk.

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
            replaced chief finds the folder gone, and leaves its successor's file alone.
        """
        self._damaged.pop(manifest.name, None)
        self._facts.pop(manifest.name, None)
        self._verified.pop(manifest.name, None)
        self.active = tf_retention.record(self.active, manifest.name, host.now())
        self.latest = manifest.name
        self._committed = manifest.commit
        self._write_notes()
        self._write_state_file(folder)

    def prune(self, folder: str) -> tuple[str, ...]:
        """Deletes what retention does not keep. Never raises. `folder` as for `record`.

        TensorFlow's file is written before anything is deleted and again after, as TensorFlow does.
        While it cannot be written, nothing is deleted: the file would name deleted checkpoints.

        Returns:
          The names of the deleted checkpoints.
        """
        if not self._may_delete or self.delete is None:
            return ()
        decided, self._decided = self._decided or self.decide(), None
        self.last_preserved = decided.last_preserved
        if self._committed is None and decided.victims:
            self._write_state_file(folder)  # for a command: the last job may have died before it
            if not self._state_file_is_true:
                return ()
        names, self._names = self._names, None
        still = self.delete([k.name for k in decided.victims], self._committed, names)
        self.active = (*(k for k in decided.victims if k.name in still), *decided.active)
        if decided.victims or decided.preserved:
            self._write_state_file(folder)
        return tuple(k.name for k in decided.victims if k.name not in still)

    def decide(self) -> tf_retention.Sweep:
        """Returns what retention would decide now. Deletes nothing. Any process."""
        most = self._max_to_keep
        if most is None and self._keep is not None:
            most = 1  # the policy decides
        is_full = most is not None and len(self.active) > most
        spared = self._spared() if is_full else set()
        return tf_retention.sweep(
            self.active, most, self._keep_every_hours, self.last_preserved, spared
        )

    def outcome(self, name: str) -> Outcome:
        """Returns a commit's outcome for the other workers: the list as `prune` will leave it.

        They do not wait for `prune`. Only the chief's list keeps a checkpoint that cannot be
        deleted.
        """
        if not self._may_delete:
            return self.standing(name)
        self._decided = decided = self.decide()
        return Outcome(None, name, _pairs(decided.active), decided.last_preserved)

    def standing(self, name: str | None) -> Outcome:
        """Returns the outcome for the other workers when nothing was saved: the current list."""
        return Outcome(None, name, _pairs(self.active), self.last_preserved)

    def adopt(self, outcome: Outcome) -> None:
        """Takes over the chief's list."""
        self.active = tuple(tf_retention.Kept(n, t) for n, t in outcome.active)
        self.last_preserved = outcome.last_preserved
        self.latest = outcome.name

    @property
    def _may_delete(self) -> bool:
        return self._state_file_is_true and self.delete is not None

    def _spared(self) -> set[str]:
        """Returns the checkpoints that must be kept; all if that cannot be determined."""
        try:
            held = set(self._holds.held())
            if self._keep is None:
                return held
            facts = [self._fact(kept) for kept in self.active]
            check_metrics(self._keep, facts)
            return held | set(self._keep.reasons(facts, host.now()))
        except ConfigurationError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                _log.warning("Nothing is deleted. %s", error)
        except Exception as error:  # a user's own policy may raise anything
            _log.warning("Nothing is deleted, as the checkpoints to keep are unknown: %r", error)
        return {kept.name for kept in self.active}

    def _fact(self, kept: tf_retention.Kept) -> Checkpoint:
        """Returns what a policy may know about a checkpoint; read only once."""
        if kept.name not in self._facts:
            try:
                head = self._catalog.head(kept.name)
            except DistckptError:
                head = None  # the catalog has warned about it
            verified = kept.name in self._verified or kept.name in self._catalog.verified()
            self._facts[kept.name] = tf_retention.facts(kept, head, verified=verified)
        return self._facts[kept.name]

    def _write_state_file(self, folder: str) -> None:
        state = CheckpointState(
            latest=self.latest or "",
            paths=tuple(k.name for k in self.active),
            timestamps=tuple(k.timestamp for k in self.active),
            last_preserved=self.last_preserved,
        )
        self._state_file_is_true = self._state_file.write(state, folder)

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
            verification_notes.write(
                self._storage, folder, name, index_crc32c, why, durable=self._durable
            )
        except OSError as error:
            _log.warning("The note in %s on %s could not be written: %s", folder, name, error)


def _pairs(active: Sequence[tf_retention.Kept]) -> tuple[tuple[str, float], ...]:
    return tuple((kept.name, kept.timestamp) for kept in active)
