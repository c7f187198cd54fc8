"""Storage on whatever TensorFlow can open: ``gs://``, ``hdfs://``, ``ram://`` and similar.

TensorFlow's file systems make an object durable when it is closed and have no flush operation, so
`durable` and the two flush operations do nothing. Directories of object stores are only prefixes
of names: they exist from the first file on and have no links.

TensorFlow is imported when the first operation runs, not with this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from distckpt.storage import base
from distckpt.storage.temporary import is_temporary_of, temporary_path

_CHUNK = 1 << 20
# The most seconds that a process waits after meeting a rival, so that they do not meet again.
_APART = 0.1

# tf.errors class -> errno, by which OSError picks its subclass.
_ERRNO = {
    "NotFoundError": errno.ENOENT,
    "AlreadyExistsError": errno.EEXIST,
    "PermissionDeniedError": errno.EACCES,
    "UnauthenticatedError": errno.EACCES,
    "ResourceExhaustedError": errno.ENOSPC,
    "DeadlineExceededError": errno.ETIMEDOUT,
    "UnimplementedError": errno.ENOTSUP,
}


class GFileStorage(base.Storage):
    """Files behind `tf.io.gfile`; paths carry their scheme, as in ``gs://bucket/run``."""

    has_folders = False

    def exists(self, path: str) -> bool:
        """See base."""
        with _gfile(path) as gfile:
            return bool(gfile.exists(path))

    def is_directory(self, path: str) -> bool:
        """See base; False if TensorFlow meets an error."""
        with _gfile(path) as gfile:
            return bool(gfile.isdir(path))

    def size(self, path: str) -> int:
        """See base. Raises IsADirectoryError for a directory."""
        with _gfile(path) as gfile:
            status = gfile.stat(path)
            if status.is_directory:
                raise _refusal(errno.EISDIR, path)
            return int(status.length)

    def modified(self, path: str) -> float | None:
        """See base; some of TensorFlow's file systems keep no times."""
        with _gfile(path) as gfile:
            return int(gfile.stat(path).mtime_nsec) / 1e9 or None

    def list(self, directory: str) -> list[str]:
        """See base."""
        with _gfile(directory) as gfile:
            if not gfile.isdir(directory):
                # exists() raises errors for which isdir() returns False: an unknown scheme, say.
                if gfile.exists(directory):
                    raise _refusal(errno.ENOTDIR, directory)
                return []
            # Object stores add a slash to the name of a "directory".
            names = [name.rstrip("/") for name in gfile.listdir(directory)]
            if directory.startswith("ram://"):  # lists a neighbour "ab" as "b" in the directory "a"
                names = [name for name in names if gfile.exists(f"{directory}/{name}")]
            return sorted(names)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See base."""
        import tensorflow as tf

        missing = sys.maxsize if size is None else size
        parts: list[bytes] = []
        with _gfile(path) as gfile, gfile.GFile(path, "rb") as file:
            try:
                file.seek(offset)  # opens the file, so absence raises even if nothing is read
            except tf.errors.OutOfRangeError:
                return b""  # the offset is beyond the end
            # Never file.read() without a size: it looks up the size by *name*, and so truncates a
            # file that was replaced after it was opened.
            while missing and (part := file.read(min(missing, _CHUNK))):
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)

    def make_directory(self, path: str) -> None:
        """See base."""
        with _gfile(path) as gfile:
            gfile.makedirs(path)

    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base; `durable` changes nothing, see the module."""
        temporary = temporary_path(path)
        try:
            with _gfile(path) as gfile, gfile.GFile(temporary, "wb") as file:
                file.write(data)
            self.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise

    def create(self, path: str, data: bytes, *, durable: bool) -> None:
        """See base. Of several concurrent calls, possibly none succeeds.

        TensorFlow has no conditional creation. So each process first writes its claim, a temporary
        file, and then looks for other claims and for the file itself. Of two processes, one must
        see the other: the later claim exists before its owner looks, and the earlier claim is
        removed only when the file exists or its owner has given up. The claim of a dead process
        prevents the file's creation until somebody removes the claim.
        """
        claim = temporary_path(path)
        try:
            with _gfile(path) as gfile, gfile.GFile(claim, "wb") as file:
                file.write(data)
            if self._has_rivals(path, claim) or self.exists(path):  # in this order
                raise _refusal(errno.EEXIST, path)
            self.rename(claim, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(claim)
            raise

    def _has_rivals(self, path: str, claim: str) -> bool:
        folder, mine = posixpath.split(claim)
        rivals = [n for n in self.list(folder) if n != mine and is_temporary_of(n, path)]
        if rivals:
            time.sleep(random.uniform(0.0, _APART))
        return bool(rivals)

    def rename(self, source: str, target: str) -> None:
        """See base; where only files can be renamed, a directory is renamed file by file."""
        with _gfile(source) as gfile:
            if gfile.isdir(source):
                self._rename_directory(source, target)
                return
            # Some of TensorFlow's file systems would delete the directory.
            if gfile.isdir(target):
                raise _refusal(errno.EISDIR, target)
            gfile.rename(source, target, overwrite=True)

    def _rename_directory(self, source: str, target: str) -> None:
        import tensorflow as tf

        with _gfile(source) as gfile:
            with contextlib.suppress(tf.errors.NotFoundError, tf.errors.UnimplementedError):
                gfile.rename(source, target, overwrite=True)
            if not gfile.exists(source):
                return
            # ram:// renames the directory's own entry, if it has one, and nothing in it.
            gfile.makedirs(target)
            # Other processes may add or remove files meanwhile, so go on until it is empty.
            while names := self.list(source):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        self.rename(f"{source}/{name}", f"{target}/{name}")
            self.remove_tree(source)

    def remove(self, path: str) -> None:
        """See base. Raises IsADirectoryError if `path` is a directory."""
        import tensorflow as tf

        with _gfile(path) as gfile, contextlib.suppress(tf.errors.NotFoundError):
            if gfile.isdir(path):
                raise _refusal(errno.EISDIR, path)
            gfile.remove(path)

    def remove_tree(self, path: str) -> None:
        """See base. Raises NotADirectoryError for a file."""
        import tensorflow as tf

        with _gfile(path) as gfile, contextlib.suppress(tf.errors.NotFoundError):
            if gfile.exists(path) and not gfile.isdir(path):
                raise _refusal(errno.ENOTDIR, path)
            gfile.rmtree(path)

    def flush(self, path: str) -> None:
        """Only checks that the file exists: closing made it durable. Raises FileNotFoundError."""
        with _gfile(path) as gfile:
            gfile.stat(path)

    def freshen(self, directory: str) -> None:
        """Does nothing: listings of object stores are up to date, and each costs a request."""

    def flush_directory(self, path: str) -> None:
        """Does nothing: a name is as durable as its object."""


@contextlib.contextmanager
def _gfile(path: str) -> Iterator[Any]:
    """Yields `tf.io.gfile`; turns its errors into the `OSError`s that the port promises."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise _os_error(error, path) from error


def _os_error(error: Any, path: str) -> OSError:
    text = str(error.message or "")
    # TensorFlow has no code for these two: it reports FailedPrecondition or InvalidArgument.
    if "not a directory" in text.lower():
        number = errno.ENOTDIR
    elif "is a directory" in text.lower():
        number = errno.EISDIR
    else:
        number = _ERRNO.get(type(error).__name__, errno.EIO)
    return OSError(number, text or os.strerror(number), path)


def _refusal(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
