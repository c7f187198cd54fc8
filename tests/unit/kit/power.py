"""A storage in memory that knows what would survive if the power failed now.

The model is worse than a journaling file system: a change of a directory reaches the disk for sure
when that directory is flushed; before, any of the changes may have reached it, and any other not,
in any order. The content of a file that was not flushed itself is lost, whatever became of its
name.
"""

from __future__ import annotations

import errno
import os
import pathlib

from distckpt.storage.base import Storage

FOLDER = None


class File:
    """A file's content, and what of it is on the disk."""

    def __init__(self, content, *, durable):
        self.content = content
        self.stable = content if durable else b""


class Change:
    """A change of one or two directories.

    Attributes:
      apply: Does it to {path: File or FOLDER}; does nothing where it cannot be done.
      folders: The directories.
      forced: Whether it is on the disk for sure.
    """

    def __init__(self, apply, *folders):
        self.apply = apply
        self.folders = folders
        self.forced = False


class PowerStorage(Storage):
    """Begins with what is in a real directory, which is not changed.

    Attributes:
      journal: The changes so far.
    """

    def __init__(self, directory):
        self._root = str(directory)
        self._first = {self._root: FOLDER}
        for path in pathlib.Path(directory).rglob("*"):
            content = FOLDER if path.is_dir() else File(path.read_bytes(), durable=True)
            self._first[str(path)] = content
        for parent in pathlib.Path(directory).parents:
            self._first[str(parent)] = FOLDER
        self._now = dict(self._first)
        self.journal = []

    @property
    def open(self):
        """The positions in the journal of the changes that may be lost."""
        return [i for i, change in enumerate(self.journal) if not change.forced]

    def survivors(self, lucky):
        """Returns {relative path: content} after a power failure.

        Args:
          lucky: Positions of changes that have reached the disk though they need not have.
        """
        tree = dict(self._first)
        for position, change in enumerate(self.journal):
            if change.forced or position in lucky:
                change.apply(tree)
        root = self._root + "/"
        return {
            path[len(root) :]: file.stable
            for path, file in tree.items()
            if file is not FOLDER and path.startswith(root) and _is_reachable(tree, path)
        }

    # --- Looking

    def exists(self, path):
        return path in self._now

    def is_directory(self, path):
        return path in self._now and self._now[path] is FOLDER

    def size(self, path):
        return len(self._file(path).content)

    def list(self, directory):
        if self._now.get(directory) is not FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, "it is a file", directory)
        return sorted(
            p.rpartition("/")[2] for p in list(self._now) if os.path.dirname(p) == directory
        )

    def read(self, path, offset=0, size=None):
        content = self._file(path).content
        return content[offset:] if size is None else content[offset : offset + size]

    # --- Changing

    def make_directory(self, path):
        parents = [path]
        while parents[-1] not in self._now:
            parents.append(os.path.dirname(parents[-1]))
        for folder in reversed(parents[:-1]):
            self._change(lambda tree, folder=folder: tree.setdefault(folder, FOLDER), folder)

    def write(self, path, data, *, durable):
        self._need(os.path.dirname(path))
        file = File(data, durable=durable)
        self._change(lambda tree: tree.update({path: file}), path)
        if durable:
            self.flush_directory(os.path.dirname(path))

    def create(self, path, data, *, durable):
        if path in self._now:
            raise FileExistsError(errno.EEXIST, "it is there", path)
        self.write(path, data, durable=durable)

    def rename(self, source, target):
        self._need(source)
        self._need(os.path.dirname(target))

        def change(tree):
            moved = {p: f for p, f in tree.items() if p == source or p.startswith(source + "/")}
            for path, file in moved.items():
                del tree[path]
                tree[target + path[len(source) :]] = file

        self._change(change, source, target)

    def remove(self, path):
        if path in self._now:
            self._change(lambda tree: tree.pop(path, None), path)

    def remove_tree(self, path):
        for name in [p for p in sorted(self._now, reverse=True) if p.startswith(path + "/")]:
            self.remove(name)
        self.remove(path)

    def flush(self, path):
        file = self._file(path)
        file.stable = file.content

    def flush_directory(self, path):
        self._need(path)
        for change in self.journal:
            change.forced = change.forced or path in change.folders

    def _change(self, apply, *paths):
        apply(self._now)
        self.journal.append(Change(apply, *map(os.path.dirname, paths)))

    def _need(self, path):
        if path not in self._now:
            raise FileNotFoundError(errno.ENOENT, "there is no such thing", path)

    def _file(self, path):
        self._need(path)
        if self._now[path] is FOLDER:
            raise IsADirectoryError(errno.EISDIR, "it is a directory", path)
        return self._now[path]


def _is_reachable(tree, path):
    """Returns whether all folders on the way to `path` are there."""
    while path not in ("/", ""):
        if path not in tree:
            return False
        path = os.path.dirname(path)
    return True
