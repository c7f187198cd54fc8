"""The storage port on a simulated disk: every operation an event, which may fail or be the last."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from distckpt.storage.base import Storage

from .disk import Disk, File, Folder, Node
from .world import World

# How long something goes on failing, in seconds.
FAILING = 4.0


class Faults:
    """What is wrong with the storage, for one process or for all.

    Attributes:
      any: Whether anything is, or has been.
      broken: errno → until when every change fails.
      next_one: errno of the next operation to fail, or None; and whether it is done all the same.
      pace: How long each change takes, in seconds.
    """

    def __init__(self) -> None:
        self.any = False
        self.broken: dict[int, float] = {}
        self.next_one: tuple[int, bool] | None = None
        self.pace = 0.0

    def fail_next(self, code: int, *, is_done: bool) -> None:
        """Lets the next operation fail."""
        self.any, self.next_one = True, (code, is_done)

    def fail_until(self, code: int, end: float) -> None:
        """Lets every change fail until a time."""
        self.any = True
        self.broken[code] = end

    def slow_down(self, pace: float) -> None:
        """Lets each change take time, in seconds."""
        self.any, self.pace = True, pace


class SimulatedStorage(Storage):
    """The disk as one process sees it.

    Args:
      world: The world.
      disk: The disk.
      whose: Name of the process.
      everybody: What is wrong for all.
      lag: For how many seconds a listing of a folder may be out of date, and a file that was not
        found counts as not there, as on NFS. What this process has changed itself, it sees.
      changed: Called after every change, with a folder and the name in it that has changed.
      failed: Called when an operation fails because of a fault.

    Attributes:
      faults: What is wrong for this process.
    """

    def __init__(
        self,
        world: World,
        disk: Disk,
        whose: str,
        everybody: Faults,
        *,
        lag: float = 0.0,
        changed: Callable[[str, str], None] = lambda folder, name: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._disk = disk
        self._whose = whose
        self._lag = lag
        self._changed = changed
        self._failed = failed
        self._seen: dict[str, tuple[float, Folder | None, frozenset[str]]] = {}
        self._missed: dict[str, float] = {}
        self._temporaries = 0
        self.faults = Faults()
        self._everybody = everybody

    # --- Looking

    def exists(self, path: str) -> bool:
        """See base."""
        self._look("exists", path)
        return self._find(path) is not None

    def is_directory(self, path: str) -> bool:
        """See base."""
        self._look("is_directory", path)
        return isinstance(self._disk.find(path), Folder)

    def size(self, path: str) -> int:
        """See base."""
        self._look("size", path)
        return len(self._file(path).content)

    def modified(self, path: str) -> float:
        """See base."""
        self._look("modified", path)
        return self._file(path).written

    def list(self, directory: str) -> list[str]:
        """See base."""
        self._look("list", directory)
        node = self._disk.find(directory)
        if isinstance(node, File):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", directory)
        if not self._lag:
            return sorted(node.entries) if node else []
        seen = self._seen.get(directory)
        if seen is None or seen[0] + self._lag < self._world.now:
            names = frozenset(node.entries) if node else frozenset()
            seen = self._seen[directory] = (self._world.now, node, names)
        return sorted(seen[2])

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See base."""
        self._look("read", path)
        content = self._file(path).content
        if offset == 0 and size is None:
            return content
        return content[offset:] if size is None else content[offset : offset + size]

    def _file(self, path: str) -> File:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        return node

    def _find(self, path: str) -> Node | None:
        """Returns what is at `path`; a client that did not find it does not ask again."""
        if self._missed and self._missed.get(path, -1.0) >= self._world.now:
            return None
        node = self._disk.find(path)
        if node is None and self._lag:
            self._missed[path] = self._world.now + self._lag
        return node

    # --- Changing

    def make_directory(self, path: str) -> None:
        """See base."""
        done = self._change("make_directory", path)
        if not isinstance(self._disk.find(path), Folder):
            self._make_missing(path)
        done()

    def _make_missing(self, path: str) -> None:
        names = path.split("/")[1:]
        for number in range(1, len(names) + 1):
            folder = "/" + "/".join(names[:number])
            there = self._disk.find(folder)
            if there is None:
                self._disk.link(folder, Folder())
                self._touched(folder)
            elif isinstance(there, File):
                raise FileExistsError(errno.EEXIST, "File exists", folder)

    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base."""
        done = self._change("write", path)
        temporary = self._temporary(path, data, durable=durable)
        try:
            self._disk.move(temporary, path)
        except OSError:
            self._disk.unlink(temporary)
            raise
        self._placed(path, done, durable=durable)

    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base. Who creates is asked by the server: no cache has a say."""
        done = self._change("create", path)
        temporary = self._temporary(path, data, durable=durable)
        if self._disk.find(path) is not None:
            self._disk.unlink(temporary)
            self._touched(path)
            raise FileExistsError(errno.EEXIST, "File exists", path)
        self._disk.move(temporary, path)
        self._placed(path, done, durable=durable)

    def freshen(self, directory: str) -> None:
        """See base."""
        self._temporaries += 1
        path = f"{directory}/.fresh.{self._whose}-{self._temporaries}.tmp"
        self.write(path, b"", durable=False)
        self.remove(path)

    def rename(self, source: str, target: str) -> None:
        """See base."""
        done = self._change("rename", source, target)
        self._disk.move(source, target)
        self._touched(source)
        self._touched(target)
        done()

    def remove(self, path: str) -> None:
        """See base."""
        done = self._change("remove", path)
        node = self._disk.find(path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        if node is not None:
            self._disk.unlink(path)
            self._touched(path)
        done()

    def remove_tree(self, path: str) -> None:
        """See base. What comes in the meantime goes, too."""
        done = self._change("remove_tree", path)
        node = self._disk.find(path)
        if isinstance(node, File):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        while isinstance(node, Folder) and node.entries:
            inner = f"{path}/{next(iter(node.entries))}"
            if isinstance(self._disk.find(inner), Folder):
                self.remove_tree(inner)
            else:
                self.remove(inner)
            node = self._disk.find(path)
        if node is not None and self._disk.find(path) is node:
            self._disk.unlink(path)
            self._touched(path)
        done()

    def flush(self, path: str) -> None:
        """See base."""
        done = self._change("flush", path)
        self._disk.flush(path)
        done()

    def flush_directory(self, path: str) -> None:
        """See base."""
        done = self._change("flush_directory", path)
        self._disk.flush_folder(path)
        done()

    def _temporary(self, path: str, data: bytes, *, durable: bool) -> str:
        """Writes a temporary file: first half of it, then all."""
        parent, _, name = path.rpartition("/")
        self._temporaries += 1
        temporary = f"{parent}/.{name[:40]}.{self._whose}-{self._temporaries}.tmp"
        self._disk.link(temporary, File(data[: len(data) // 2], self._whose))
        self._touched(temporary)
        self._world.event("… half of it")
        file = File(data, self._whose)
        # The same file, in truth; but it may have been moved or removed in the meantime.
        self._disk.replace(temporary, file)
        if durable:
            file.stable = data
        return temporary

    def _placed(self, path: str, done: Callable[[], None], *, durable: bool) -> None:
        self._touched(path)
        if durable:
            self._world.event("… flush its directory")
            self._disk.flush_folder(path.rpartition("/")[0])
        done()

    def _touched(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        if self._lag:
            self._seen.pop(folder, None)
            self._missed.clear()
        self._changed(folder, name)

    # --- Failing

    def _look(self, kind: str, path: str) -> None:
        self._world.event(kind, path)
        if self.faults.any or self._everybody.any:
            code = self._error(looking=True)
            if code is not None:
                raise OSError(code[0], os.strerror(code[0]), path)

    def _change(self, kind: str, *paths: str) -> Callable[[], None]:
        """Begins a change; raises if it fails before it is done.

        Returns:
          What is to be called at its end; raises if it fails although it is done.
        """
        self._world.event(kind, *paths)
        if not (self.faults.any or self._everybody.any):
            return _nothing
        self._world.linger(self.faults.pace)
        error = self._error(looking=False)
        if error is None:
            return _nothing
        code, done = error
        self._world.tell(
            "", f"  fails{' although it is done' if done else ''}: {errno.errorcode[code]}"
        )
        if not done:
            raise OSError(code, os.strerror(code), paths[0])

        def fail() -> None:
            raise OSError(code, os.strerror(code), paths[0])

        return fail

    def _error(self, *, looking: bool) -> tuple[int, bool] | None:
        for faults in (self.faults, self._everybody):
            if faults.next_one is not None and not (looking and faults.next_one[0] != errno.EIO):
                error, faults.next_one = faults.next_one, None
                self._failed()
                return error
            for code, until in faults.broken.items():
                if self._world.now < until and not (looking and code != errno.EIO):
                    self._failed()
                    return code, False
        return None


def _nothing() -> None:
    pass
