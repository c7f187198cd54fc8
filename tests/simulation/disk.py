"""A file system that knows what of it would survive if the power failed now.

The model is worse than a journaling file system: a change of a directory is on the disk for sure
when that directory has been flushed; before, any of the changes may have got there, and any other
not. The content of a file that was not flushed itself is lost or torn, whatever became of its name.
"""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable


class File:
    """A file: what a reader sees, what is on the disk, and who wrote it. Never changed in place."""

    __slots__ = ("content", "stable", "whose", "written")

    _count = itertools.count()

    def __init__(self, content: bytes, whose: str) -> None:
        self.content = content
        self.written = float(next(self._count))
        self.stable: bytes | None = None
        self.whose = whose


class Folder:
    """A directory: name → what is there, as a reader sees it and on the disk."""

    __slots__ = ("entries", "stable")

    def __init__(self) -> None:
        self.entries: dict[str, File | Folder] = {}
        self.stable: dict[str, File | Folder] = {}


Node = File | Folder


class Change:
    """A name that was given, taken away, or moved; not yet on the disk for sure."""

    __slots__ = ("forced", "node", "source", "source_name", "target", "target_name")

    def __init__(
        self,
        node: Node,
        source: Folder | None,
        source_name: str,
        target: Folder | None,
        target_name: str,
    ) -> None:
        self.node = node
        self.source = source
        self.source_name = source_name
        self.target = target
        self.target_name = target_name
        self.forced = False

    def settle(self) -> None:
        """Does it on the disk, if it can be done there."""
        if self.source is not None:
            if self.source.stable.get(self.source_name) is not self.node:
                return
            del self.source.stable[self.source_name]
        if self.target is not None:
            self.target.stable[self.target_name] = self.node


class Disk:
    """The file system of a server. Paths begin with "/".

    Attributes:
      has_journal: Whether the power may fail: only then the disk remembers what is not on it.
    """

    def __init__(self) -> None:
        self.has_journal = True
        self.root = Folder()
        # Folders that have been looked for, by path; forgotten when any folder moves or goes.
        self._folders: dict[str, Folder] = {}
        # All changes that may not be on the disk, and those of each folder that it has not forced.
        self._journal: deque[Change] = deque()
        self._unforced: dict[Folder, list[Change]] = {}
        self._forget_folders()

    # --- Looking

    def find(self, path: str) -> Node | None:
        """Returns what is at `path`, or None."""
        folders = self._folders
        if path in folders:
            return folders[path]
        parent, _, name = path.rpartition("/")
        folder = folders[parent] if parent in folders else self.find(parent)
        if folder.__class__ is not Folder:
            return None
        node = folder.entries.get(name)  # type: ignore[union-attr]
        if node.__class__ is Folder:
            folders[path] = node  # type: ignore[assignment]
        return node

    def file(self, path: str) -> File:
        """Returns the file at `path`; raises as `open` does."""
        node = self.find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        return node

    def folder_of(self, path: str) -> tuple[Folder, str]:
        """Returns the folder that `path` is in, and its name there."""
        parent, _, name = path.rpartition("/")
        folder = self._folders[parent] if parent in self._folders else self.find(parent)
        if not isinstance(folder, Folder):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return folder, name

    # --- Changing

    def link(self, path: str, node: Node) -> None:
        """Gives `node` a name."""
        folder, name = self.folder_of(path)
        self._do(node, None, "", folder, name)

    def replace(self, path: str, file: File) -> None:
        """Puts a file in the place of another one; raises as `open` does if there is none."""
        folder, name = self.folder_of(path)
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self._do(file, None, "", folder, name)

    def unlink(self, path: str) -> None:
        """Takes a name away."""
        folder, name = self.folder_of(path)
        self._do(folder.entries[name], folder, name, None, "")

    def move(self, source: str, target: str) -> None:
        """Renames a file, over another one if there is one, or a folder."""
        old, old_name = self.folder_of(source)
        node = old.entries.get(old_name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", source)
        new, new_name = self.folder_of(target)
        there = new.entries.get(new_name)
        if there is node:
            return
        if isinstance(there, Folder):
            if isinstance(node, File):
                raise IsADirectoryError(errno.EISDIR, "Is a directory", target)
            raise OSError(errno.ENOTEMPTY, "Directory not empty", target)
        self._do(node, old, old_name, new, new_name)

    def flush(self, path: str) -> None:
        """Forces the content of a file to the disk."""
        file = self.file(path)
        file.stable = file.content

    def flush_folder(self, path: str) -> None:
        """Forces the names of a directory to the disk."""
        folder = self.find(path)
        if not isinstance(folder, Folder):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        for change in self._unforced.pop(folder, ()):
            change.forced = True
        while self._journal and self._journal[0].forced:
            self._journal.popleft().settle()

    def _do(
        self,
        node: Node,
        source: Folder | None,
        source_name: str,
        target: Folder | None,
        target_name: str,
    ) -> None:
        if source is not None:
            del source.entries[source_name]
            if node.__class__ is Folder:
                self._forget_folders()
        if target is not None:
            target.entries[target_name] = node
        if self.has_journal:
            change = Change(node, source, source_name, target, target_name)
            self._journal.append(change)
            for folder in {source, target} - {None}:
                self._unforced.setdefault(folder, []).append(change)

    def _forget_folders(self) -> None:
        self._folders = {"": self.root, "/": self.root}

    # --- Losing

    def lose_power(self, lucky: Callable[[], bool], torn: Callable[[bytes], bytes]) -> None:
        """Leaves what is on the disk.

        Args:
          lucky: Whether the next change that was not flushed has got there all the same.
          torn: What is left of a content that was not flushed.
        """
        assert self.has_journal
        for change in self._journal:
            if change.forced or lucky():
                change.settle()
        self._journal.clear()
        self._unforced.clear()
        self._restart(self.root, torn)
        self._forget_folders()

    def lose_unflushed(self, whose: str, torn: Callable[[bytes], bytes]) -> None:
        """Leaves what the machine of one process has sent: what others have stays."""
        for file in _files(self.root):
            if file.whose == whose and file.stable is None:
                file.content = torn(file.content)

    def _restart(self, folder: Folder, torn: Callable[[bytes], bytes]) -> None:
        folder.entries = dict(folder.stable)
        for node in folder.entries.values():
            if isinstance(node, Folder):
                self._restart(node, torn)
            elif node.stable is None:
                node.content = node.stable = torn(node.content)


def _files(folder: Folder) -> list[File]:
    found: list[File] = []
    for node in folder.entries.values():
        found += _files(node) if isinstance(node, Folder) else [node]
    return found
