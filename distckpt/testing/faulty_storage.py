"""A storage that fails, or whose process dies, at a chosen operation.

For testing distckpt and its extensions:

    storage = FaultyStorage(LocalStorage(), [Fault(fails(errno.ENOSPC), Where("write", "*.index"))])
    storage = FaultyStorage(LocalStorage(), [Fault(dies(), Where(writing=7), AFTER)])
    ...
    print(storage.story())

A fault strikes before, after, or during an operation that is not atomic. "After" is a real case for
errors, too: an operation that raises may nevertheless have taken effect.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import threading
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from distckpt.storage.base import Storage
from distckpt.storage.temporary import temporary_path

T = TypeVar("T")
Moment = Literal["before", "during", "after"]
BEFORE: Moment = "before"
DURING: Moment = "during"
AFTER: Moment = "after"

# All other operations only read.
WRITING = frozenset(
    {
        "make_directory",
        "freshen",
        "write",
        "create",
        "rename",
        "remove",
        "remove_tree",
        "flush",
        "flush_directory",
    }
)


class ProcessDied(BaseException):
    """The process is dead. Not an Exception: a dead process handles nothing."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One call of the storage.

    Attributes:
      kind: The name of the method.
      paths: Its path arguments.
      number: The number of the call, from 1.
      writing: Its number among the calls that change something, from 1; 0 if it only reads.
    """

    kind: str
    paths: tuple[str, ...]
    number: int
    writing: int

    def __str__(self) -> str:
        return f"{self.kind} {' -> '.join(self.paths)}"


@dataclasses.dataclass(frozen=True)
class Where:
    """Which operations a fault strikes; all given conditions must match.

    Attributes:
      kind: The name of a method, e.g. "rename"; None for any.
      path: A pattern for `fnmatch` that one of the paths must match.
      writing: The number of the operation among those that change something, from 1.
    """

    kind: str | None = None
    path: str = "*"
    writing: int | None = None

    def fits(self, operation: Operation) -> bool:
        """Returns whether `operation` matches."""
        return (
            self.kind in (None, operation.kind)
            and self.writing in (None, operation.writing)
            and any(fnmatch.fnmatchcase(path, self.path) for path in operation.paths)
        )


Effect = Callable[["FaultyStorage", Operation], None]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens, where, and when.

    Attributes:
      effect: `fails`, `dies`, `pauses`, or another function.
      where: Which operations it strikes.
      moment: BEFORE, AFTER or DURING. For an atomic operation, DURING means before.
      times: How many times it strikes at most.
    """

    effect: Effect
    where: Where = Where()
    moment: Moment = BEFORE
    times: int = 1


def fails(code: int) -> Effect:
    """Returns an effect that raises OSError with errno `code`."""

    def effect(storage: FaultyStorage, operation: Operation) -> None:
        raise OSError(code, os.strerror(code), operation.paths[0])

    return effect


def dies() -> Effect:
    """Returns an effect that simulates death: this and every later operation raises."""

    def effect(storage: FaultyStorage, operation: Operation) -> None:
        storage.dead = True
        storage.on_death()
        raise ProcessDied(str(operation))

    return effect


def pauses(reached: threading.Event, go_on: threading.Event, seconds: float = 60.0) -> Effect:
    """Returns an effect that stops the process, like SIGSTOP or a long garbage collection.

    Args:
      reached: Set when the operation is reached.
      go_on: The event to wait for.
      seconds: The longest wait.
    """

    def effect(storage: FaultyStorage, operation: Operation) -> None:
        reached.set()
        if not go_on.wait(seconds):
            raise TimeoutError(f"{operation} was never resumed")

    return effect


class FaultyStorage(Storage):
    """Passes every operation on to another storage, unless a fault strikes. Thread-safe.

    Args:
      storage: The storage that does the work.
      faults: The planned faults.
      on_death: Called when `dies` strikes, before it raises.

    Attributes:
      operations: All calls so far.
      writes: How many of them change something.
      dead: Whether the process has died.
      has_folders: As for the other storage.
    """

    def __init__(
        self,
        storage: Storage,
        faults: Sequence[Fault] = (),
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._faults = list(faults)
        self._left = [fault.times for fault in faults]
        self._lock = threading.Lock()
        self.on_death = on_death
        self.has_folders = storage.has_folders
        self.operations: list[Operation] = []
        self.writes = 0
        self.dead = False

    def add(self, fault: Fault) -> None:
        """Adds a fault, for operations from now on."""
        with self._lock:
            self._faults.append(fault)
            self._left.append(fault.times)

    def forget_faults(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._faults.clear()
            self._left.clear()

    def story(self) -> str:
        """Returns all calls that change something, one on each line, with their numbers."""
        return "\n".join(f"{o.writing:3d} {o}" for o in self.operations if o.writing)

    def exists(self, path: str) -> bool:
        """See base."""
        return self._do("exists", lambda: self._storage.exists(path), path)

    def is_directory(self, path: str) -> bool:
        """See base."""
        return self._do("is_directory", lambda: self._storage.is_directory(path), path)

    def is_link(self, path: str) -> bool:
        """See base."""
        return self._do("is_link", lambda: self._storage.is_link(path), path)

    def size(self, path: str) -> int:
        """See base."""
        return self._do("size", lambda: self._storage.size(path), path)

    def modified(self, path: str) -> float | None:
        """See base."""
        return self._do("modified", lambda: self._storage.modified(path), path)

    def free(self, directory: str) -> int | None:
        """See base."""
        return self._do("free", lambda: self._storage.free(directory), directory)

    def list(self, directory: str) -> list[str]:
        """See base."""
        return self._do("list", lambda: self._storage.list(directory), directory)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See base."""
        return self._do("read", lambda: self._storage.read(path, offset, size), path)

    def make_directory(self, path: str) -> None:
        """See base."""
        self._do("make_directory", lambda: self._storage.make_directory(path), path)

    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base. In the middle of it there is half a temporary file."""
        self._do(
            "write",
            lambda: self._storage.write(path, data, durable=durable),
            path,
            half=lambda: self._half_write(path, data),
        )

    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base. In the middle of it there is half a temporary file."""
        self._do(
            "create",
            lambda: self._storage.create(path, data, durable=durable),
            path,
            half=lambda: self._half_write(path, data),
        )

    def freshen(self, directory: str) -> None:
        """See base. In the middle of it there is a temporary file."""
        self._do(
            "freshen",
            lambda: self._storage.freshen(directory),
            directory,
            half=lambda: self._half_write(f"{directory}/fresh", b""),
        )

    def rename(self, source: str, target: str) -> None:
        """See base."""
        self._do("rename", lambda: self._storage.rename(source, target), source, target)

    def remove(self, path: str) -> None:
        """See base."""
        self._do("remove", lambda: self._storage.remove(path), path)

    def remove_tree(self, path: str) -> None:
        """See base. In the middle of it every other entry is gone."""
        self._do(
            "remove_tree",
            lambda: self._storage.remove_tree(path),
            path,
            half=lambda: self._half_remove(path),
        )

    def flush(self, path: str) -> None:
        """See base."""
        self._do("flush", lambda: self._storage.flush(path), path)

    def flush_directory(self, path: str) -> None:
        """See base."""
        self._do("flush_directory", lambda: self._storage.flush_directory(path), path)

    def _do(
        self,
        kind: str,
        work: Callable[[], T],
        *paths: str,
        half: Callable[[], None] = lambda: None,
    ) -> T:
        operation = self._count(kind, paths)
        self._strike(operation, BEFORE)
        if self._meant(operation, DURING):
            half()
            self._strike(operation, DURING)
        result = work()
        self._strike(operation, AFTER)
        return result

    def _count(self, kind: str, paths: tuple[str, ...]) -> Operation:
        with self._lock:
            if self.dead:
                raise ProcessDied(f"{kind} {paths[0]} after death")
            self.writes += kind in WRITING
            writing = self.writes if kind in WRITING else 0
            operation = Operation(kind, paths, len(self.operations) + 1, writing)
            self.operations.append(operation)
            return operation

    def _meant(self, operation: Operation, moment: Moment) -> tuple[int, ...]:
        """Returns the positions of the faults that are to strike now."""
        return tuple(
            position
            for position, fault in enumerate(self._faults)
            if self._left[position] and fault.moment == moment and fault.where.fits(operation)
        )

    def _strike(self, operation: Operation, moment: Moment) -> None:
        with self._lock:
            struck = self._meant(operation, moment)
            for position in struck:
                self._left[position] -= 1
        for position in struck:
            self._faults[position].effect(self, operation)

    def _half_write(self, path: str, data: bytes) -> None:
        self._storage.write(temporary_path(path), data[: len(data) // 2], durable=False)

    def _half_remove(self, path: str) -> None:
        for name in self._storage.list(path)[::2]:
            inner = f"{path}/{name}"
            if self._storage.is_directory(inner):
                self._storage.remove_tree(inner)
            else:
                self._storage.remove(inner)
