"""Who owns a directory: epochs, taken by the chief process and checked before each change.

An epoch is a file ``.distckpt/epochs/00000007.json``, created exclusively; the highest one owns the
directory. All managers of one process share its epoch, so that two of them (of different names) can
work side by side.

How a replaced chief is kept from doing harm, even one that was only paused: it makes its pending
folder first and checks the epoch then (`Ownership.enter`), while its successor first takes the
epoch and then moves every older pending folder away. One of the two must see the other, if neither
believes an old listing (`Storage.freshen`). And every rename of a commit starts in the pending
folder, every removal is a rename into one, so that they fail once it has been moved.
"""

from __future__ import annotations

import atexit
import contextlib
import threading

from distckpt.core import layout
from distckpt.core import manifest as manifests
from distckpt.errors import (
    DirectoryError,
    DirectoryInUseError,
    ManifestError,
    SupersededError,
)
from distckpt.roles import host, owner
from distckpt.storage.base import Storage


class Ownership:
    """This process's hold on one directory. Chief only. Thread-safe.

    Attributes:
      in_flight: Names of the pending folders that this process works in.
      settling: Held while what others left is settled: managers share the directory.
    """

    def __init__(self, storage: Storage, directory: str, *, durable: bool) -> None:
        self._storage = storage
        self._directory = directory
        self._folder = layout.epochs_folder(directory)
        self._durable = durable
        self._lock = threading.RLock()
        self._epoch: int | None = None
        self._since = 0.0
        self._sequence = 0
        self.in_flight: set[str] = set()
        self.settling = threading.Lock()

    @property
    def epoch(self) -> int | None:
        """The epoch that this process has taken, or None."""
        return self._epoch

    def take(self) -> bool:
        """Takes an epoch above all others, once. Returns whether it was taken just now.

        Raises:
          DirectoryError: There is none left, or a private folder is a link.
          OSError: The directory cannot be written.
        """
        with self._lock:
            if self._epoch is not None:
                return False
            self._prepare()
            epoch = 0
            while True:
                epoch = max([epoch, *(self._taken() or self._mentioned())]) + 1
                if epoch > layout.LARGEST_NUMBER:
                    raise DirectoryError(self._exhausted(epoch - 1))
                try:
                    self._create(epoch)
                except FileExistsError:
                    continue  # another process was faster: its epoch is now the one to exceed
                return True

    def take_from(self, before: owner.Owner | None) -> None:
        """Takes the epoch after that of `before`, which is known to have ended.

        Args:
          before: The owner that was found; None if there was none.

        Raises:
          DirectoryInUseError: Another process has taken the directory meanwhile.
          DirectoryError: A private folder is a link.
          OSError: The directory cannot be written.
        """
        with self._lock:
            self._prepare()
            now = owner.find(self._storage, self._directory)
            epoch = before.epoch if before else max(self._mentioned(), default=0)
            try:
                if now != before:
                    raise FileExistsError
                self._create(epoch + 1)
            except FileExistsError:
                raise DirectoryInUseError(
                    f"{self._directory} has just been taken by "
                    f"{owner.find(self._storage, self._directory)}; nothing was changed."
                ) from None

    def release(self) -> None:
        """Says in the epoch's file that this process has ended. Best effort; others only read it.

        A directory that is gone does not come back for that.
        """
        with contextlib.suppress(OSError), self._lock:
            if self._epoch is None or self._epoch != max(self._taken(), default=0):
                return
            ended = owner.me(self._epoch, self._since, host.now())
            self._storage.write(self._path(self._epoch), owner.render(ended), durable=False)

    def _prepare(self) -> None:
        """Makes the private folders, and sees to it that what is read there is not old."""
        self._refuse_links()
        self._storage.make_directory(self._folder)
        # So that a pin that comes from another host is not overlooked (NFS remembers, too, what
        # was not there).
        self._storage.make_directory(layout.holds_folder(self._directory))
        self._storage.freshen(self._folder)

    def _create(self, epoch: int) -> None:
        since = host.now()
        data = owner.render(owner.me(epoch, since))
        self._storage.create(self._path(epoch), data, durable=self._durable)
        if self._durable:
            self._flush_parents()
        self._epoch, self._since = epoch, since

    def check(self) -> None:
        """Makes sure that nobody has taken the directory over.

        Raises:
          SupersededError: Somebody has; names host, process and time.
          OSError: The directory cannot be read.
        """
        highest = max(self._taken(), default=0)
        if self._epoch is None or highest > self._epoch:
            raise self._superseded(owner.read(self._storage, self._directory, highest))

    def check_cause(self) -> None:
        """Makes sure that an error is not a successor's doing. Raises SupersededError alone."""
        with contextlib.suppress(OSError):
            if self._epoch is not None:
                self.check()

    def enter(self, folder: str) -> None:
        """Makes the pending folder named `folder` for this process to work in.

        Raises:
          SupersededError: Another process has taken the directory over.
          OSError: The directory cannot be written.
        """
        self.in_flight.add(folder)
        path = layout.join(self._directory, folder)
        # The folder first, the check after: see above. An old listing would not do for that.
        self._storage.make_directory(path)
        try:
            self._storage.freshen(self._folder)
            self.check()
        except SupersededError:
            self._storage.remove_tree(path)
            raise
        if self._durable:  # it must not vanish from under what is moved out of it, or into it
            self._storage.flush_directory(self._directory)

    def stage(self, path: str, data: bytes) -> None:
        """Writes a file in a pending folder of this process, to be renamed out of it.

        Where folders are but parts of names, that works although a successor has moved the folder
        away. So the epoch is checked after it: a successor who comes later moves the file, too.

        Raises:
          SupersededError: Another process has taken the directory over; the file is not there.
          OSError: The storage failed.
        """
        self._storage.write(path, data, durable=self._durable)
        if self._storage.has_folders:
            return
        try:
            self.check()
        except SupersededError:
            self._storage.remove(path)
            raise

    def next_attempt(self) -> str:
        """Returns a new attempt id, made of the epoch, a count, and chance."""
        with self._lock:
            assert self._epoch is not None, "take() comes first"
            self._sequence += 1
            return layout.attempt_id(self._epoch, self._sequence, host.token(4))

    def forget_older(self) -> None:
        """Removes the files of lower epochs; only the highest counts."""
        for epoch in self._taken():
            if self._epoch is not None and epoch < self._epoch:
                self._storage.remove(self._path(epoch))

    def _refuse_links(self) -> None:
        """Makes sure that what is removed from the private folders is not removed elsewhere."""
        for folder in layout.private_folders(self._directory):
            if self._storage.is_link(folder):
                raise DirectoryError(
                    f"{folder} is a link. What is no longer needed there is deleted, and would be "
                    "deleted elsewhere. Remove the link; if its target is distckpt's, put that in "
                    "its place."
                )

    def _superseded(self, by: owner.Owner) -> SupersededError:
        error = SupersededError(
            f"{self._directory} has been taken over by {by}. This process ({host.name()}, pid "
            f"{host.pid()}, epoch {self._epoch}) neither commits nor prunes there any more. If "
            "both should run, give each its own directory; else stop one."
        )
        error.successor = str(by)
        return error

    def _exhausted(self, epoch: int) -> str:
        return (
            f"{self._directory} is said to be in epoch {epoch}, above which there is none. No job "
            "gets so far: a file has been damaged, or put there. Remove it; it is one of those in "
            f"{self._folder}, or, if none of them is of that epoch, a manifest or a pending folder."
        )

    def _taken(self) -> list[int]:
        return owner.taken(self._storage, self._directory)

    def _mentioned(self) -> list[int]:
        """Returns the epochs of the checkpoints and saves in a directory without epoch files.

        Checkpoints may have been copied here without the private folder; a new one must be newer.
        """
        listing = layout.classify(self._storage.list(self._directory))
        found = [p.attempt.epoch for p in listing.pending]
        for name in (n for n, files in listing.checkpoints.items() if files.has_manifest):
            path = layout.join(self._directory, layout.manifest_name(name))
            with contextlib.suppress(ManifestError, FileNotFoundError, IsADirectoryError):
                found.append(manifests.parse(self._storage.read(path), path).epoch)
        return found

    def _path(self, epoch: int) -> str:
        return layout.join(self._folder, layout.epoch_name(epoch))

    def _flush_parents(self) -> None:
        self._storage.flush_directory(layout.join(self._directory, layout.PRIVATE_FOLDER))
        self._storage.flush_directory(self._directory)
        for folder in layout.ancestors(self._directory):
            # It may be the job that has made it. If it may not be opened, it is none of ours.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                self._storage.flush_directory(folder)


_registry: dict[tuple[int, str], Ownership] = {}
_registry_lock = threading.Lock()


def ownership_of(storage: Storage, directory: str, *, durable: bool) -> Ownership:
    """Returns this process's one `Ownership` of `directory`, an absolute path or URL."""
    key = (host.pid(), directory)  # a forked child is another process and must take its own
    with _registry_lock:
        if key not in _registry:
            _registry[key] = Ownership(storage, directory, durable=durable)
            atexit.register(_release, key[0], _registry[key])
        return _registry[key]


def _release(pid: int, ownership: Ownership) -> None:
    """Says at the end of the process that it has ended; not at that of a forked one.

    Whoever is in a hurry (Ctrl-C) goes without it; Python would show a traceback that helps nobody.
    """
    if pid == host.pid():
        with contextlib.suppress(KeyboardInterrupt):
            ownership.release()
