"""Storage on a file system of the operating system: a disk, or a mount such as NFS or Lustre.

A file appears under its name only when it is complete: it is written under a temporary name,
flushed and renamed, and then the directory, which holds the name, is flushed, too. That is the
order of hashicorp/raft's ``file_snapshot.go``. A process that dies in between leaves the old file
unchanged and at most one file that `temporary.is_temporary` recognises.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat

from distckpt.runtime import portable
from distckpt.storage import base
from distckpt.storage.temporary import named_errors, temporary_path

# Errors of link() on file systems without hard links (FAT, SMB, some FUSE mounts).
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_TREE_ATTEMPTS = 100


class LocalStorage(base.Storage):
    """Files of the operating system, with permissions by the process's umask.

    After an error of a durable `write`, `create` or `rename` the new state may be visible without
    being durable: an error means "not guaranteed", not "absent".
    """

    def exists(self, path: str) -> bool:
        """See base; an error other than absence is raised."""
        return _mode(path) is not None

    def is_directory(self, path: str) -> bool:
        """See base; a link to a directory is one."""
        mode = _mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def is_link(self, path: str) -> bool:
        """See base."""
        return os.path.islink(path)

    def size(self, path: str) -> int:
        """See base. Raises IsADirectoryError for a directory."""
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return status.st_size

    def modified(self, path: str) -> float | None:
        """See base."""
        return os.stat(path).st_mtime

    def free(self, directory: str) -> int | None:
        """See base; quotas are not known here."""
        return shutil.disk_usage(directory).free

    def list(self, directory: str) -> list[str]:
        """See base."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See base. Raises OSError unless it is a file: reading a pipe may block forever."""
        with open(path, "rb", opener=_open_file) as file:
            file.seek(offset)
            return file.read(-1 if size is None else size)

    def make_directory(self, path: str) -> None:
        """See base; to make it durable, flush its parent directory."""
        os.makedirs(path, exist_ok=True)

    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base; a link at `path` is replaced, not followed."""
        temporary = _written(path, data, durable)
        try:
            with named_errors(temporary, path):
                os.replace(temporary, path)
        except BaseException:
            _discard(temporary)
            raise
        if durable:
            self.flush_directory(_parent(path))

    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base.

        Where the file system has no hard links the name is taken first and then filled: a reader
        may find the file empty for a moment, and it stays empty if the process dies at that moment.
        """
        temporary = _written(path, data, durable)
        try:
            _place(temporary, path)
        finally:
            _discard(temporary)
        if durable:
            self.flush_directory(_parent(path))

    def freshen(self, directory: str) -> None:
        """See base."""
        path = temporary_path(f"{directory}/fresh")
        try:
            with named_errors(path, directory):
                os.close(_create(path))
        finally:
            _discard(path)

    def rename(self, source: str, target: str) -> None:
        """See base; to make it durable, flush both parent directories."""
        os.replace(source, target)

    def remove(self, path: str) -> None:
        """See base. Raises OSError if `path` is a directory."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)

    def remove_tree(self, path: str) -> None:
        """See base; of a link, only the link is removed. Raises NotADirectoryError for a file."""
        if os.path.islink(path):
            self.remove(path)
            return
        for _ in range(_TREE_ATTEMPTS):
            try:
                shutil.rmtree(path)
                return
            except FileNotFoundError:
                # Another process is removing the same tree: go on with the rest.
                if not os.path.lexists(path):
                    return
        raise OSError(errno.ENOTEMPTY, "files come and go while the tree is being removed", path)

    def flush(self, path: str) -> None:
        """See base."""
        descriptor = os.open(path, portable.TO_FLUSH)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def flush_directory(self, path: str) -> None:
        """See base; does nothing on platforms that cannot flush directories."""
        portable.flush_directory(path)


def _mode(path: str) -> int | None:
    """Returns the mode of `path`, or None if it does not exist."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open_file(path: str, flags: int) -> int:
    """Opens a file or a directory, without blocking."""
    descriptor = os.open(path, flags | portable.DO_NOT_WAIT | portable.OPEN)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` itself refuses a directory
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is neither a file nor a directory", path)


def _parent(path: str) -> str:
    return os.path.dirname(path) or os.curdir


def _written(path: str, data: bytes, durable: bool) -> str:
    """Returns the path of a new temporary file next to `path` that holds `data`."""
    temporary = temporary_path(path)
    # Not `tempfile`: it makes files that only the owner may read.
    with named_errors(temporary, path):
        descriptor = _create(temporary)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)
    except BaseException:
        _discard(temporary)
        raise
    return temporary


def _create(path: str) -> int:
    """Creates a file; returns its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | portable.OPEN, 0o666)


def _place(temporary: str, path: str) -> None:
    """Gives the complete file `temporary` the name `path`, if that is free."""
    try:
        portable.link(temporary, path)
    except FileExistsError:
        # A network file system may repeat a request after a lost answer; then the file is ours.
        if not _same_file(temporary, path):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_without_links(temporary, path)


def _place_without_links(temporary: str, path: str) -> None:
    os.close(_create(path))
    try:
        os.replace(temporary, path)
    except BaseException:
        _discard(path)
        raise


def _same_file(one: str, other: str) -> bool:
    return os.path.samestat(os.lstat(one), os.lstat(other))


def _discard(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
