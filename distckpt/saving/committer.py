"""Opens, merges and commits attempts. Only the chief does this.

The order of the commit, each step on stable storage before the next (with ``durable``):

    1  the prepared manifest, in the pending folder
    2  data files move into the directory, under names that no file there has
    3  only if a checkpoint of the same name exists: a manifest that holds both versions
    4  the index moves into the directory: plain TensorFlow sees the complete new checkpoint
    5  the manifest moves into the directory: committed

If the chief dies before 5 (before 4, if a checkpoint is replaced), the previous checkpoints are
unchanged, and `directory.attempt_cleanup` removes the rest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from distckpt.core import layout, manifest_json
from distckpt.core import manifest as manifests
from distckpt.core.manifest import Manifest
from distckpt.core.protocol.messages import Opening, Report
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.directory.checkpoint_files import CheckpointFiles
from distckpt.errors import (
    CheckpointDamagedError,
    CommitUnknownError,
    DistckptError,
    ManifestError,
    SaveFailedError,
)
from distckpt.maintenance.rollback import Rollbacks
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.held_terms import HeldTerm
from distckpt.runtime import host
from distckpt.runtime.gc_pause import paused
from distckpt.saving import directory_errors
from distckpt.saving.manifest_builder import Label, ManifestBuilder, sources
from distckpt.saving.shard_merger import ShardMerger
from distckpt.state.base import Merger
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")
Refresh = Callable[[str | None, bool, Sequence[str] | None], None]


class Committer:
    """Opens, merges and commits attempts in one directory. Chief only.

    Args:
      storage: The directory's storage.
      directory: The directory's absolute path or URL.
      ownership: This process's ownership of the directory.
      merger: Merges the shards.
      durable: Whether each step is forced to stable storage before the next.
      refresh: Called when a save opens, after the cleanup of unfinished attempts: updates the list
        of managed checkpoints. See `ManagedCheckpoints.refresh`.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        ownership: Ownership,
        merger: Merger,
        *,
        durable: bool,
        refresh: Refresh = lambda kind, anew, names: None,
    ) -> None:
        self._refresh = refresh
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._merger = ShardMerger(storage, merger, durable=durable)
        self._durable = durable
        self._cleanup = AttemptCleanup(storage, directory, ownership, durable=durable)
        self._rollbacks = Rollbacks(storage, directory, ownership, durable=durable)
        self._builder = ManifestBuilder(storage, directory)
        # The term in which the directory was cleaned up and the list updated; None if that is due.
        self._settled: HeldTerm | None = None
        self._names: Sequence[str] = ()  # what the directory had when the attempt was merged
        self._is_first = True  # no attempt has been opened yet
        self._last: tuple[HeldTerm, Opening] | None = None  # the attempt opened last

    def open(self, name: str, fingerprint: str) -> Opening:
        """Makes the pending folder of a new attempt to save checkpoint `name`.

        Raises:
          DirectoryError: The directory cannot be made or written.
          StorageFullError: There is no space left.
          SupersededError: Another process has taken over the directory.
          DirectoryClearedError: The directory was cleared or moved since this manager committed
            there.
        """
        with self._ownership.telling():
            try:
                return self._open(name, fingerprint)
            except OSError as error:
                self._ownership.check_cause()
                raise directory_errors.explain(self._storage, self._directory, error) from error

    def merge(self, opening: Opening, reports: Sequence[Report]) -> None:
        """Merges the shards within the pending folder.

        Raises:
          SupersededError: Another process has taken over the directory.
          SaveFailedError: The storage failed, or the directory was cleared.
        """
        name, folder = opening.name, self.folder(opening)
        with self._ownership.telling():
            try:
                self._merger.put_together(name, folder, reports)
                self._names = self._storage.list(self._directory)
                existing = self._files(name, folder).data(self._names)
                self._merger.renumber(name, folder, sum(len(r.files) for r in reports), existing)
            except (OSError, CheckpointDamagedError) as error:
                self._ownership.check_cause()
                raise SaveFailedError(
                    f"The chief could not merge the shards in {folder}: {error}. The last "
                    "checkpoint is untouched; save again."
                ) from error

    def commit(
        self, opening: Opening, reports: Sequence[Report], label: Label, seconds: float
    ) -> Manifest:
        """Commits a merged attempt.

        Args:
          opening: The attempt.
          reports: All reports, in the order in which they were merged.
          label: The program's label.
          seconds: Duration of the save so far.

        Raises:
          SupersededError: Another process has taken over the directory.
          SaveFailedError: The storage failed, or the directory was cleared; nothing is committed.
          CommitUnknownError: The storage failed in the last step.
        """
        held_term, folder = self._ownership.held_term, opening.folder
        try:
            if not held_term.begin_commit(opening.name, folder):
                raise SaveFailedError(
                    f"Another manager of this process has begun to save {opening.name} since this "
                    "save began, so this one, which is older, was not committed. Call sync() "
                    "before another manager saves to the directory, or give each manager a "
                    "checkpoint_name of its own."
                )
            with self._ownership.telling():
                manifest = self._commit(opening, reports, label, seconds)
        finally:
            held_term.end_commit(opening.name, folder)
        self._ownership.committed()
        return manifest

    def _commit(
        self, opening: Opening, reports: Sequence[Report], label: Label, seconds: float
    ) -> Manifest:
        folder = self.folder(opening)
        self._settled = None  # after an error, the directory must be read again
        try:
            self._ownership.check()
            manifest = self._builder.manifest(opening, reports, label, seconds, self._names)
            self._prepare(manifest, reports, folder)
            old = self._replaced(opening.name, manifest, folder)
            if old is None:
                self._move(folder, layout.index_name(opening.name))
            else:
                self._switch(dataclasses.replace(manifest, replaces=old), folder)
        except OSError as error:
            self._ownership.check_cause()
            raise SaveFailedError(
                f"The chief could not commit {opening.name} in {self._directory}: {error}. The "
                "last checkpoint is untouched; save again."
            ) from error
        if old is None:
            self._publish(manifest, folder)
        else:
            self._publish_replacement(manifest, folder)
        self._settled = self._ownership.held_term
        return manifest

    def close(self, opening: Opening) -> None:
        """Cleans up after an attempt. Best effort: the next save tries again.

        Removes the pending folder and the replaced version if the attempt is committed, and
        everything from it if not.
        """
        try:
            self._cleanup.roll_back(opening.folder)
        except (OSError, DistckptError) as error:
            _log.warning("%s was not cleaned up: %s", self.folder(opening), error)
        finally:
            self._ownership.held_term.close(opening.name, opening.folder)

    def _open(self, name: str, fingerprint: str) -> Opening:
        taken_over = self._ownership.take()
        if taken_over:
            self._ownership.check()
            # This shows all folders made before; a process that makes one later sees the new term.
            self._storage.freshen(self._directory)
        self._forget_last()
        is_new = self._settled is not self._ownership.held_term
        names = self._ownership.names
        if self._cleanup.finish_all(names) or is_new:
            names = None
        if taken_over:
            self._cleanup.remove_temporaries()
        if is_new:
            self._rollbacks.finish()
            self._ownership.forget_older()
        kind = None if taken_over and self._is_first else layout.split_number(name)[0]
        self._refresh(kind, is_new, names)
        self._settled, self._is_first = self._ownership.held_term, False
        attempt = self._ownership.held_term.next_attempt()
        opening = Opening(attempt, name, self._directory, fingerprint, host.token(16))
        folder = self.folder(opening)
        self._last = self._ownership.held_term, opening
        try:
            self._ownership.enter(opening.folder)
            if not self._ownership.held_term.open(name, opening.folder):
                raise SaveFailedError(
                    f"Another manager of this process is just committing {name}; nothing was "
                    "saved. Save again."
                )
            token = opening.token.encode()
            self._storage.write(layout.join(folder, layout.PROBE_FILE), token, durable=False)
        except BaseException:
            self.close(opening)
            raise
        return opening

    def _forget_last(self) -> None:
        """Lets the cleanup have an attempt that an interrupt has ended, so that nobody closed it.

        A committer has one attempt at a time, so the last one no longer runs.
        """
        if self._last is not None:
            held_term, opening = self._last
            held_term.close(opening.name, opening.folder)

    def _prepare(self, manifest: Manifest, reports: Sequence[Report], folder: str) -> None:
        """Steps 1 and 2."""
        prepared = layout.join(folder, layout.PREPARED_MANIFEST)
        self._storage.write(prepared, _rendered(manifest), durable=self._durable)
        others = sources(reports)
        targets = [f.name for f in manifest.files]
        for source, target in zip(
            targets[: len(targets) - len(others)] + others, targets, strict=True
        ):
            self._storage.rename(layout.join(folder, source), layout.join(self._directory, target))
        self._flush()

    def _replaced(self, name: str, manifest: Manifest, folder: str) -> manifests.Replaced | None:
        """Returns the version of `name` that is in force now; None if there is none."""
        files = self._files(name, folder)
        index = files.index()
        if index is None:
            return None
        try:
            old = files.manifest()
            old = old.in_force(index.crc32c) if old else None
        except ManifestError:
            old = None  # damaged: only the plain checkpoint is left
        claimed = old.claims if old else frozenset()
        ours = {f.name for f in manifest.files}
        others = sorted((claimed | set(files.all())) - ours)
        # It may hold two versions itself, if its own switch was never cleaned up.
        old = dataclasses.replace(old, replaces=None) if old else None
        return manifests.Replaced(index, tuple(others), old)

    def _switch(self, both: Manifest, folder: str) -> None:
        """Steps 3 and 4 if a checkpoint is replaced."""
        final = dataclasses.replace(both, replaces=None)
        for name, manifest in ((layout.SWITCH_MANIFEST, both), (layout.FINAL_MANIFEST, final)):
            self._ownership.stage(layout.join(folder, name), _rendered(manifest))
        self._move(folder, layout.SWITCH_MANIFEST, layout.manifest_name(both.name))
        index = layout.index_name(both.name)
        try:
            self._move(folder, index)
        except OSError as error:
            files = self._files(both.name, folder)
            if self._is_done(lambda: files.index() == both.index, index, error):
                raise self._unknown(index, error) from error
            raise

    def _publish(self, manifest: Manifest, folder: str) -> None:
        """Step 5."""
        target = layout.manifest_name(manifest.name)
        path = layout.join(self._directory, target)
        try:
            self._storage.rename(layout.join(folder, layout.PREPARED_MANIFEST), path)
        except OSError as error:
            files = self._files(manifest.name, folder)
            if not self._is_done(
                lambda: _is(files.manifest(entries=False), manifest), target, error
            ):
                self._ownership.check_cause()
                raise SaveFailedError(
                    f"The chief could not write {path}: {error}. The last checkpoint is untouched; "
                    "save again."
                ) from error
        try:
            self._flush()
        except OSError as error:
            raise self._unknown(target, error) from error

    def _is_done(self, look: Callable[[], bool], name: str, cause: OSError) -> bool:
        """Checks whether a rename was done although it raised an error."""
        try:
            return look()
        except (OSError, ManifestError):
            raise self._unknown(name, cause) from cause

    def _publish_replacement(self, manifest: Manifest, folder: str) -> None:
        """Step 5 after a switch, which was the commit. If it fails, `close` or a successor does it.

        They need the prepared manifest, which stays in the folder.
        """
        try:
            self._move(folder, layout.FINAL_MANIFEST, layout.manifest_name(manifest.name))
        except OSError as error:
            _log.warning("%s keeps its double manifest for now: %s", manifest.name, error)

    def _unknown(self, name: str, error: OSError) -> CommitUnknownError:
        """Returns the error for a file that may be in its place, but perhaps not durably."""
        return CommitUnknownError(
            f"{name} is written, but {self._directory} could not be flushed or read: {error}. The "
            "checkpoint may be lost if the machine fails now. Look at the file system, then save "
            "again."
        )

    def _move(self, folder: str, name: str, target: str | None = None) -> None:
        self._storage.rename(
            layout.join(folder, name), layout.join(self._directory, target or name)
        )
        self._flush()

    def _flush(self) -> None:
        if self._durable:
            self._storage.flush_directory(self._directory)

    def folder(self, opening: Opening) -> str:
        """Returns the path of the attempt's pending folder."""
        return layout.join(self._directory, opening.folder)

    def _files(self, name: str, folder: str) -> CheckpointFiles:
        return CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )


@paused()
def _rendered(manifest: Manifest) -> bytes:
    return manifest_json.render(manifest)


def _is(found: Manifest | None, manifest: Manifest) -> bool:
    return found is not None and found.attempt == manifest.attempt
