"""Sets and removes pins and leases. Any process, also while a job saves to the directory.

Needs no term: it adds and removes only its own files. `directory.holds` explains how a pin and a
deletion in progress find each other.
"""

from __future__ import annotations

from distckpt.core import layout, listings, pins_and_leases
from distckpt.core.pins_and_leases import Lease, Pin
from distckpt.directory.catalog import Catalog
from distckpt.errors import ConfigurationError
from distckpt.runtime import host
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader

# A deletion that finds a pin is undone at once; this is the time to see that, even on NFS.
PATIENCE = 5.0
_PAUSE = 0.1


def pin(storage: Storage, directory: str, pin_: Pin) -> bool:
    """Pins a checkpoint; when this returns, no retention deletes it.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      pin_: The pin: the checkpoint, the user, and the reason.

    Returns:
      Whether it was not pinned yet. An existing pin is kept.

    Raises:
      ConfigurationError: The checkpoint does not exist, or is just being deleted.
      OSError: The pin cannot be written.
    """
    path = layout.join(layout.holds_folder(directory), layout.pin_name(pin_.name))
    if storage.exists(path):
        return False
    _place(storage, directory, pin_, path)
    return True


def unpin(storage: Storage, directory: str, name: str) -> bool:
    """Removes the pin of a checkpoint; returns whether there was one.

    Raises:
      OSError: It cannot be removed.
    """
    path = layout.join(layout.holds_folder(directory), layout.pin_name(name))
    was = storage.exists(path)
    storage.remove(path)
    return was


class Leaseholder:
    """A lease on one checkpoint at a time. Any process that reads.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      seconds: How long the lease holds after each renewal.
    """

    def __init__(self, storage: Storage, directory: str, seconds: float) -> None:
        self._storage = storage
        self._directory = directory
        self._seconds = seconds
        self._token = host.token(8)
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        """The held checkpoint, or None."""
        return self._name

    def take(self, name: str) -> None:
        """Takes a lease on `name`, and releases the previous lease.

        Raises:
          ConfigurationError: The checkpoint does not exist, or is just being deleted.
          OSError: The lease cannot be written.
        """
        if name != self._name:
            _place(self._storage, self._directory, self._lease(name), self._path(name))
            self.release()
            self._name = name

    def renew(self) -> None:
        """Renews the lease. Raises OSError if it cannot be written."""
        if self._name is not None:
            content = pins_and_leases.render(self._lease(self._name))
            self._storage.write(self._path(self._name), content, durable=False)

    def release(self) -> None:
        """Releases the lease. Raises OSError if it cannot be removed; then it expires later."""
        if self._name is not None:
            name, self._name = self._name, None
            self._storage.remove(self._path(name))

    def _lease(self, name: str) -> Lease:
        return Lease(name, self._token, host.name(), host.pid(), host.now(), self._seconds)

    def _path(self, name: str) -> str:
        folder = layout.holds_folder(self._directory)
        return layout.join(folder, layout.lease_name(name, self._token))


def _place(storage: Storage, directory: str, hold: Pin | Lease, path: str) -> None:
    """Writes a pin or a lease, and then checks that the held checkpoint still exists."""
    there = _state(storage, directory, hold.name)
    if there is None:
        raise ConfigurationError(f"There is no checkpoint {hold.name!r} in {directory}.")
    storage.make_directory(layout.holds_folder(directory))
    storage.write(path, pins_and_leases.render(hold), durable=True)
    storage.freshen(directory)
    storage.flush_directory(directory)  # the commit may not have been announced yet
    _refuse_set_aside(storage, directory, hold.name, path)
    deadline = host.monotonic() + PATIENCE
    while _state(storage, directory, hold.name) != there:
        if host.monotonic() >= deadline:
            storage.remove(path)
            raise ConfigurationError(
                f"{hold.name!r} in {directory} is just being deleted: it is too late to hold it."
            )
        host.sleep(_PAUSE)
        storage.freshen(directory)


def _refuse_set_aside(storage: Storage, directory: str, name: str, path: str) -> None:
    """Removes the hold at `path` and raises ConfigurationError if a rollback moves `name` away.

    The rollback looks for holds before it begins; this process looks for the rollback after it has
    written its hold.
    """
    why = Catalog(RetryingReader(storage), directory, warns=False).leaving().get(name)
    if why is not None:
        storage.remove(path)
        raise ConfigurationError(f"{name} in {directory} cannot be pinned or leased: {why}.")


def _state(storage: Storage, directory: str, name: str) -> bool | None:
    """Returns whether the checkpoint has a manifest; None if there is no such checkpoint."""
    found = listings.classify(storage.list(directory)).checkpoints.get(name)
    return found.has_manifest if found is not None and found.has_index else None
