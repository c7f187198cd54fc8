"""Reads checkpoints in evaluators, servers and notebooks: processes that never save there.

They take no part in the job and never disturb it. They write only a lease, a small file that keeps
retention from deleting the checkpoint that is being read; it expires by itself if the reader dies.
Nothing here needs TensorFlow.

`checkpoints_iterator` works like `tf.train.checkpoints_iterator`, with the same arguments, except
that its checkpoints are committed, and are kept while the body of the loop works on them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from distckpt.core import layout
from distckpt.directory.pinning import Leaseholder
from distckpt.errors import ConfigurationError, RestoreError
from distckpt.reading.checkpoint_poller import Arrival, CheckpointPoller
from distckpt.reading.tensors import Tensors
from distckpt.runtime import portable
from distckpt.storage.base import Storage
from distckpt.storage.choose import storage_for
from distckpt.storage.retrying_reader import RetryingReader

if TYPE_CHECKING:
    from distckpt.core.tensorflow_format.tensor_values import Array

_log = logging.getLogger("distckpt")
# How many times a lease is renewed before it would expire.
_RENEWALS = 4


class Reader:
    """Reads tensors of a directory's checkpoints, without TensorFlow and without the model.

    A context manager. Within it, a lease protects the checkpoint that was opened last.

    Example:
      ```python
      with distckpt.Reader("/checkpoints/run-1") as reader:
        print(reader.open(), reader.step, reader.metrics)
        kernel = reader.read("model/layer/kernel")
        some = reader.read("embedding", rows=(1000, 1010))
      ```

    Args:
      directory: Where a job saves, or has saved.
      lease_seconds: How long a lease holds if this process dies; it is renewed in the background
        while the process lives. None: no lease is taken, and nothing is written. If a lease cannot
        be written (a read-only mount), a warning is logged, and a checkpoint may be deleted while
        it is being read.

    Raises:
      ConfigurationError: `lease_seconds` is not positive.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, lease_seconds: float | None = 600.0
    ) -> None:
        self._directory = portable.absolute(os.fspath(directory))
        self._storage = storage_for(self._directory)
        self._poller = CheckpointPoller(self._storage, self._directory)
        self._lease = _Lease(self._storage, self._directory, lease_seconds)
        self._tensors: Tensors | None = None

    def __enter__(self) -> Reader:
        """Returns the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the checkpoint."""
        self.close()

    def close(self) -> None:
        """Releases the checkpoint. May be called repeatedly."""
        self._tensors = None
        self._lease.close()

    def latest(self) -> str | None:
        """Returns the path of the newest committed checkpoint, or None.

        Raises:
          OSError: The directory cannot be read.
        """
        newest = self._poller.newest()
        return self._path(newest.name) if newest else None

    def open(self, name: str | None = None) -> str:
        """Opens a checkpoint, takes a lease on it, and returns its path.

        Args:
          name: Its name ("ckpt-12") or path. Default: the newest.

        Raises:
          ConfigurationError: The checkpoint does not exist.
          CheckpointDamagedError: Its index or its manifest is damaged.
          OSError: It cannot be read.
        """
        name = self._lease.take(lambda: self._name(name))
        self._tensors = Tensors(RetryingReader(self._storage), self._directory, name)
        return self._path(name)

    @property
    def step(self) -> int | None:
        """The training step of the open checkpoint; None if unknown."""
        manifest = self._opened().manifest
        return manifest.step if manifest else None

    @property
    def metrics(self) -> dict[str, float]:
        """What ``save(metrics=…)`` was given for the open checkpoint."""
        manifest = self._opened().manifest
        return dict(manifest.metrics) if manifest else {}

    def keys(self) -> list[str]:
        """Returns the keys of the open checkpoint's tensors, sorted, as `read` takes them."""
        return [tensor.short_key for tensor in self._opened().all()]

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the dimensions of a tensor. Raises ConfigurationError if it does not exist."""
        return self._opened().find(key).shape

    def dtype(self, key: str) -> str:
        """Returns the name of a tensor's type. Raises ConfigurationError if it does not exist."""
        return self._opened().find(key).dtype

    def read(self, key: str, rows: tuple[int, int] | None = None) -> Array:
        """Returns the value of a tensor of the open checkpoint.

        Args:
          key: Its checkpoint key; "/.ATTRIBUTES/VARIABLE_VALUE" may be left out.
          rows: Only these rows along the first axis: (start, stop). Then only their bytes are read,
            and checksums are not verified.

        Returns:
          A NumPy array; strings as `bytes` objects.

        Raises:
          ConfigurationError: The tensor does not exist, NumPy cannot hold it, or no checkpoint is
            open.
          CheckpointDamagedError: Its bytes are damaged.
          OSError: They cannot be read.
        """
        tensors = self._opened()
        return tensors.read(tensors.find(key), rows)

    def _opened(self) -> Tensors:
        if self._tensors is None:
            raise ConfigurationError("No checkpoint is open: call open() first.")
        return self._tensors

    def _name(self, name: str | None) -> str:
        if name is not None:
            return name.rpartition("/")[2]
        newest = self._poller.newest()
        if newest is None:
            raise ConfigurationError(f"There is no checkpoint in {self._directory}.")
        return newest.name

    def _path(self, name: str) -> str:
        return layout.join(self._directory, name)


def checkpoints_iterator(
    checkpoint_dir: str | os.PathLike[str],
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], Any] | None = None,
    *,
    every: bool = False,
    lease_seconds: float | None = 600.0,
    poll_secs: float = 1.0,
) -> Iterator[str]:
    """Yields the path of each new committed checkpoint, as it comes; for evaluators.

    While the body of the loop works on a checkpoint, a lease keeps it from being deleted. The
    directory need not exist yet.

    Example:
      ```python
      for path in distckpt.checkpoints_iterator("/checkpoints/run-1", timeout=3600):
        checkpoint.restore(path).expect_partial()
        evaluate()
      ```

    Args:
      checkpoint_dir: Where a job saves.
      min_interval_secs: The minimum number of seconds between two yielded checkpoints.
      timeout: How many seconds to wait for the next checkpoint; None forever.
      timeout_fn: Called after the timeout: the iteration ends if it returns true, and otherwise
        goes on waiting. Default: the iteration ends.
      every: Whether to yield every checkpoint, in order of commit, existing ones included. By
        default only the newest is yielded, and checkpoints in between are skipped.
      lease_seconds: As for `Reader`.
      poll_secs: Seconds between two looks at the directory.

    Yields:
      Paths. A path is yielded again if its checkpoint was saved again.

    Raises:
      ConfigurationError: `poll_secs` or `lease_seconds` is not positive.
    """
    directory = portable.absolute(os.fspath(checkpoint_dir))
    storage = storage_for(directory)
    poller = CheckpointPoller(storage, directory)
    with contextlib.closing(_Lease(storage, directory, lease_seconds)) as lease:
        for name in _names(poller, every, timeout, timeout_fn, poll_secs):
            if not _take(lease, name):
                continue  # deleted meanwhile; there is a newer one
            began = time.monotonic()
            yield layout.join(directory, name)
            lease.release()
            time.sleep(max(0.0, began + min_interval_secs - time.monotonic()))


def _names(
    poller: CheckpointPoller,
    every: bool,
    timeout: float | None,
    timeout_fn: Callable[[], Any] | None,
    poll_secs: float,
) -> Iterator[str]:
    """Yields the names of checkpoints as they come, until the timeout."""
    if not poll_secs > 0:
        raise ConfigurationError(f"poll_secs must be positive, got {poll_secs!r}.")
    while True:
        arrival = _wait(poller, every, timeout, poll_secs)
        if arrival is not None:
            yield arrival.name
        elif timeout_fn is None or timeout_fn():
            return


def _take(lease: _Lease, name: str) -> bool:
    """Takes a lease on `name`; returns whether the checkpoint still exists."""
    try:
        lease.take(lambda: name)
    except ConfigurationError:
        return False
    return True


def _wait(
    poller: CheckpointPoller, every: bool, timeout: float | None, poll_secs: float
) -> Arrival | None:
    """Returns the next checkpoint; None if there is none in time."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            found = poller.next(every=every)
        except (OSError, RestoreError) as error:
            _log.warning("Cannot look for checkpoints now: %s", error)
            found = None
        if found is not None:
            return found
        left = poll_secs if deadline is None else min(poll_secs, deadline - time.monotonic())
        if left <= 0:
            return None
        time.sleep(left)


class _Lease:
    """A lease that a thread renews while it is held, if leases can be written.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      seconds: How long it holds after each renewal; None for no lease at all.
    """

    def __init__(self, storage: Storage, directory: str, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise ConfigurationError(f"lease_seconds must be positive, or None, got {seconds!r}.")
        self._directory = directory
        self._seconds = seconds or 0.0
        self._holder = Leaseholder(storage, directory, seconds) if seconds is not None else None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, choose: Callable[[], str]) -> str:
        """Takes a lease on the checkpoint that `choose` names, and returns its name.

        If that checkpoint is just being deleted, `choose` is called once more.
        """
        name = choose()
        try:
            self._take(name)
        except ConfigurationError:
            again = choose()
            if again == name:
                raise
            self._take(again)
            return again
        return name

    def release(self) -> None:
        """Releases the lease; another can be taken."""
        with self._lock:
            self._let_go()

    def close(self) -> None:
        """Releases the lease, and ends the thread."""
        self._ended.set()
        self.release()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._ended.clear()

    def _take(self, name: str) -> None:
        if self._holder is None:
            return
        try:
            with self._lock:
                self._holder.take(name)
        except OSError as error:
            _log.warning(
                "No lease can be written in %s (%s): a checkpoint may be deleted while it is being "
                "read.",
                self._directory,
                error,
            )
            self._holder = None
            return
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._renew, name="distckpt-lease", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the next `take` tries again
            _log.warning("A lease in %s will not be renewed: %s.", self._directory, error)
        else:
            self._thread = thread

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            with self._lock:
                if self._holder is None:
                    return
                try:
                    self._holder.renew()
                except OSError as error:
                    _log.warning("A lease in %s was not renewed: %s", self._directory, error)

    def _let_go(self) -> None:
        if self._holder is None:
            return
        try:
            self._holder.release()
        except OSError as error:
            _log.warning(
                "A lease in %s was not removed; it will expire: %s", self._directory, error
            )
