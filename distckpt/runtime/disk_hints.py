"""Hints to Linux's file systems about a file that is being written.

Both are optional: where the system or the file system lacks them, nothing happens.

``fallocate(2)`` reserves the space of a file, so that a full disk is found before anything is
written, and the file is in one piece. ``sync_file_range(2)`` makes the kernel begin to write pages
back while the program goes on; it waits for nothing and promises nothing, so it replaces no fsync.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
from typing import Any

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: the size of the file still says how much is written
_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def preallocate(descriptor: int, size: int) -> None:
    """Reserves `size` bytes for an empty file, if its file system can do that.

    Unlike ``os.posix_fallocate``, it never does so by writing zeros.

    Raises:
      OSError: There is not so much space.
    """
    function = _function("fallocate")
    if function is None or size == 0:
        return
    if function(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return
    code = ctypes.get_errno()
    if code in _FULL:
        raise OSError(code, os.strerror(code))


def begin_writeback(descriptor: int, offset: int, size: int) -> None:
    """Makes the system begin to write a range of a file to the disk."""
    function = _function("sync_file_range")
    if function is not None:
        function(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _WRITE)


@functools.cache
def _function(name: str) -> Any:
    """Returns a function of the C library, or None."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
