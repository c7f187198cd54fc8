"""Hints to Linux's file systems about a file that is being written.

Both are optional: where the system or the file system lacks them, nothing happens.

``fallocate(2)`` reserves the space of a file, so that a full disk is noticed before the file is
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
# What `begin_writeback` reports where it cannot do anything.
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP, errno.EPERM, errno.EINTR)


def preallocate(descriptor: int, size: int) -> None:
    """Reserves `size` bytes for an empty file, if its file system can do that.

    Unlike ``os.posix_fallocate``, it never does so by writing zeros. `size` must not be less than
    what will be written: XFS keeps reserving space behind a file that grows beyond it.

    Raises:
      OSError: There is not so much space; nothing is reserved.
    """
    function = _function("fallocate")
    if function is None or size == 0:
        return
    if function(descriptor, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
        return
    code = ctypes.get_errno()
    if code in _FULL:
        os.ftruncate(descriptor, 0)  # ext4 keeps what it could reserve
        raise OSError(code, os.strerror(code))


def begin_writeback(descriptor: int, offset: int, size: int) -> None:
    """Makes the system begin to write a range of a file to the disk.

    Raises:
      OSError: It failed. A later fsync may not report that: ext4 drops pages that it cannot place.
    """
    function = _function("sync_file_range")
    if function is None:
        return
    if function(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _WRITE) == 0:
        return
    code = ctypes.get_errno()
    if code not in _UNABLE:
        raise OSError(code, os.strerror(code))


@functools.cache
def _function(name: str) -> Any:
    """Returns a function of the C library, or None."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
