"""The chief's part of a save: open, merge, commit. Nobody else commits.

The order of the commit, each step on stable storage before the next (with ``durable``):

    1  the prepared manifest, in the pending folder
    2  data files move into the directory, under names that nothing there uses
    3  only if a checkpoint of the same name exists: a manifest that holds both versions
    4  the index moves into the directory: plain TensorFlow sees the new checkpoint, whole
    5  the manifest moves into the directory: committed

A death before 5 (before the index of 4 moves, if a checkpoint is replaced) leaves what was there
before; `recovery` takes the rest back.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from distckpt.core import layout
from distckpt.core import manifest as manifests
from distckpt.core.bundle import header_only_index
from distckpt.core.bundle_merge import merge_indexes
from distckpt.core.manifest import Manifest
from distckpt.core.messages import Opening, Report
from distckpt.errors import (
    CheckpointDamagedError,
    CommitUnknownError,
    DirectoryError,
    ManifestError,
    SaveFailedError,
    SupersededError,
)
from distckpt.roles import host
from distckpt.roles.checkpoint_files import CheckpointFiles
from distckpt.roles.ownership import Ownership
from distckpt.roles.recorder import Label, Recorder, sources
from distckpt.roles.recovery import Recovery
from distckpt.state.base import Merger
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Committer:
    """Opens, merges and commits attempts in one directory. Chief only.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      ownership: This process's hold on it.
      merger: Puts the shards together.
      durable: Whether each step is forced to stable storage before the next.
      on_takeover: Called when this process has just become the directory's owner and everything
        unfinished is settled.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        ownership: Ownership,
        merger: Merger,
        *,
        durable: bool,
        on_takeover: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_takeover = on_takeover
        self._storage = storage
        self._directory = directory
        self._ownership = ownership
        self._merger = merger
        self._durable = durable
        self._recovery = Recovery(storage, directory, ownership, durable=durable)
        self._recorder = Recorder(storage, directory)
        self._settled = False  # whether the directory, and what is known of it, are in order

    def open(self, name: str, fingerprint: str) -> Opening:
        """Makes the pending folder of a new attempt to save checkpoint `name`.

        Raises:
          DirectoryError: The directory cannot be made or written.
          SupersededError: Another process has taken it over.
        """
        try:
            return self._open(name, fingerprint)
        except OSError as error:
            self._ownership.check_cause()
            raise self._explain(error) from error

    def merge(self, opening: Opening, reports: Sequence[Report]) -> None:
        """Merges the shards within the pending folder.

        Raises:
          SaveFailedError: The storage failed.
        """
        folder = self.folder(opening)
        try:
            self._put_together(opening.name, folder, reports)
            self._renumber(opening.name, folder, sum(len(r.files) for r in reports))
            if self._durable:
                self._storage.flush(layout.join(folder, layout.index_name(opening.name)))
        except (OSError, CheckpointDamagedError) as error:
            self._ownership.check_cause()
            raise SaveFailedError(
                f"The chief could not merge the shards in {folder}: {error}. The last checkpoint "
                "is untouched; save again."
            ) from error

    def commit(
        self, opening: Opening, reports: Sequence[Report], label: Label, seconds: float
    ) -> Manifest:
        """Commits a merged attempt.

        Args:
          opening: The attempt.
          reports: All reports, in the order in which they were merged.
          label: What else the manifest says.
          seconds: Duration of the save so far.

        Raises:
          SupersededError: Another process has taken the directory over.
          SaveFailedError: The storage failed; nothing is committed.
          CommitUnknownError: The storage failed in the last instant.
        """
        folder = self.folder(opening)
        self._settled = False  # if this ends in any other way, the books must be read again
        try:
            self._ownership.check()
            manifest = self._recorder.manifest(opening, reports, label, seconds)
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
        self._settled = True
        return manifest

    def close(self, opening: Opening) -> None:
        """Removes what a committed attempt leaves: the pending folder, the version replaced."""
        try:
            self._recovery.roll_back(_pending(opening))
        except (OSError, ManifestError, SupersededError) as error:
            _log.warning("%s was not tidied up: %s", self.folder(opening), error)
        self._ownership.in_flight.discard(_pending(opening))

    def discard(self, opening: Opening) -> None:
        """Takes back an attempt that failed. Best effort: the next save tries again."""
        self.close(opening)

    def _open(self, name: str, fingerprint: str) -> Opening:
        self._storage.make_directory(self._directory)
        taken_over = self._ownership.take()
        self._ownership.check()
        if taken_over:
            # Who made a folder before that, is seen; who makes one after it, sees the epoch.
            self._storage.freshen(self._directory)
        self._recovery.finish_all()
        if taken_over:
            self._recovery.remove_temporaries()
        if not self._settled:
            self._ownership.forget_older()
            self._on_takeover()
            self._settled = True
        attempt = self._ownership.next_attempt()
        opening = Opening(attempt, name, self._directory, fingerprint, host.token(16))
        folder = self.folder(opening)
        try:
            self._ownership.enter(_pending(opening))
            token = opening.token.encode()
            self._storage.write(layout.join(folder, layout.PROBE_FILE), token, durable=False)
        except BaseException:
            self.discard(opening)
            raise
        return opening

    def _put_together(self, name: str, folder: str, reports: Sequence[Report]) -> None:
        """Makes one bundle of the parts, with the data files in the order of the reports.

        TensorFlow's op keeps that order only among parts of one data file each: the files of one
        part it numbers as their tensors come.
        """
        prefixes = [prefix for report in reports for prefix in report.prefixes]
        files = [file.name for report in reports for file in report.files]
        if len(prefixes) == len(files) > 1:
            self._merger.merge(folder, prefixes, name)
            return
        for number, file in enumerate(files):
            target = layout.data_name(name, number, len(files))
            self._storage.rename(layout.join(folder, file), layout.join(folder, target))
        indexes = [layout.join(folder, layout.index_name(prefix)) for prefix in prefixes]
        merged = layout.join(folder, layout.index_name(name))
        if len(indexes) == 1:
            self._storage.rename(indexes[0], merged)
            return
        data = merge_indexes([self._storage.read(index) for index in indexes])
        self._storage.write(merged, data, durable=self._durable)
        for index in indexes:
            self._storage.remove(index)

    def _renumber(self, name: str, folder: str, files: int) -> None:
        """Gives the merged data files names that nothing in the directory uses.

        The number of data files is part of their names, so empty ones are added until it is new.
        """
        existing = self._files(name, folder).data()
        taken = {parsed.shards for parsed in map(layout.parse_data_name, existing) if parsed}
        total = files
        while total in taken:
            total += 1
        if total == files:
            return
        index = layout.join(folder, layout.index_name(name))
        parts = [self._storage.read(index), *[header_only_index()] * (total - files)]
        for shard in range(total):
            target = layout.join(folder, layout.data_name(name, shard, total))
            if shard < files:
                source = layout.join(folder, layout.data_name(name, shard, files))
                self._storage.rename(source, target)
            else:
                self._storage.write(target, b"", durable=self._durable)
        self._storage.write(index, merge_indexes(parts), durable=self._durable)

    def _prepare(self, manifest: Manifest, reports: Sequence[Report], folder: str) -> None:
        """Steps 1 and 2."""
        prepared = layout.join(folder, layout.PREPARED_MANIFEST)
        self._storage.write(prepared, manifests.render(manifest), durable=self._durable)
        others = sources(reports)
        targets = [f.name for f in manifest.files]
        for source, target in zip(
            targets[: len(targets) - len(others)] + others, targets, strict=True
        ):
            self._storage.rename(layout.join(folder, source), layout.join(self._directory, target))
        self._flush()

    def _replaced(self, name: str, manifest: Manifest, folder: str) -> manifests.Replaced | None:
        """Returns the version of `name` that is in force now, if there is one."""
        files = self._files(name, folder)
        index = files.index()
        if index is None:
            return None
        try:
            old = files.manifest()
            old = old.in_force(index.crc32c) if old else None
        except ManifestError:
            old = None  # damaged: the plain checkpoint is all there is
        claimed = old.claims if old else frozenset()
        ours = {f.name for f in manifest.files}
        others = sorted((claimed | set(files.all())) - ours)
        # It may hold two versions itself, if its own switch was never tidied up.
        old = dataclasses.replace(old, replaces=None) if old else None
        return manifests.Replaced(index, tuple(others), old)

    def _switch(self, both: Manifest, folder: str) -> None:
        """Steps 3 and 4 where a checkpoint is replaced."""
        final = dataclasses.replace(both, replaces=None)
        for name, manifest in ((layout.SWITCH_MANIFEST, both), (layout.FINAL_MANIFEST, final)):
            data = manifests.render(manifest)
            self._ownership.stage(layout.join(folder, name), data)
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
            if not self._is_done(lambda: _is(files.manifest(), manifest), target, error):
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
        """Returns by looking whether a rename was done that raised an error all the same."""
        try:
            return look()
        except (OSError, ManifestError):
            raise self._unknown(name, cause) from cause

    def _publish_replacement(self, manifest: Manifest, folder: str) -> None:
        """Step 5 after a switch, which is the commit. What fails here, `close` or a successor does.

        The prepared manifest stays in the folder, for them to see.
        """
        try:
            self._move(folder, layout.FINAL_MANIFEST, layout.manifest_name(manifest.name))
        except OSError as error:
            _log.warning("%s keeps its double manifest for now: %s", manifest.name, error)

    def _unknown(self, name: str, error: OSError) -> CommitUnknownError:
        """Returns the error to raise when `name` may be in its place, or not durably."""
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
        return layout.join(self._directory, _pending(opening))

    def _files(self, name: str, folder: str) -> CheckpointFiles:
        return CheckpointFiles(
            self._storage, self._directory, name, self._ownership, folder, durable=self._durable
        )

    def _explain(self, error: OSError) -> DirectoryError:
        d = self._directory
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            return DirectoryError(
                f"{d} cannot be a checkpoint directory: it, or a part of its path, is a file "
                f"({error}). Give a directory."
            )
        if isinstance(error, PermissionError):
            return DirectoryError(
                f"The chief may not write to {d} ({error}). Give it the rights, or another "
                "directory."
            )
        return DirectoryError(f"The chief cannot save to {d}: {error}.")


def _is(found: Manifest | None, manifest: Manifest) -> bool:
    return found is not None and found.attempt == manifest.attempt


def _pending(opening: Opening) -> str:
    return layout.pending_name(opening.name, opening.attempt)
