"""What not every operating system has, and what is done where it is missing.

All of distckpt but the launcher asks here, and nothing else of it names what only POSIX has
(`tests/unit/test_portable.py`). distckpt is tested on Linux. With the environment variable
DISTCKPT_POSIX=0 a Linux takes the other branch of everything below: so the tests try that, too.
"""

from __future__ import annotations

import errno
import getpass
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType

from distckpt.errors import UnsupportedOptionError

POSIX = os.name == "posix" and os.environ.get("DISTCKPT_POSIX") != "0"

# Flags for all calls of `os.open`: children do not inherit it, and bytes stay as they are.
OPEN = os.O_CLOEXEC if POSIX else getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
# For what may be a pipe, which nobody may ever write to.
DO_NOT_WAIT = os.O_NONBLOCK if POSIX else 0
# For flushing a file that somebody else has written; other systems flush only what they may write.
TO_FLUSH = OPEN | (os.O_RDONLY if POSIX else os.O_RDWR)

# What file systems answer to fsync() of a directory when they keep no such thing as a dirty one.
_NO_DIRECTORY_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def flush_directory(path: str) -> None:
    """Flushes the names in a directory; does nothing where there is no such thing.

    Raises:
      OSError: It could not.
    """
    if not POSIX:
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | OPEN)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FLUSH:
            raise
    finally:
        os.close(descriptor)


def link(source: str, target: str) -> None:
    """Gives a file another name, if that is free.

    Raises:
      FileExistsError: It is not.
      OSError: ENOTSUP where there are no links.
    """
    if not POSIX:
        raise OSError(errno.ENOTSUP, "no links on this system", target)
    os.link(source, target)


def user() -> str:
    """Returns the name of the user, or what is known of him."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return str(os.getuid()) if POSIX else "somebody"


def in_forked_child(function: Callable[[], None]) -> None:
    """Lets `function` be called in each child that is forked; elsewhere nobody forks."""
    if POSIX:
        os.register_at_fork(after_in_child=function)


def lower_priority(niceness: int) -> None:
    """Makes this thread nicer to others, and those that it will start."""
    if POSIX and sys.platform == "linux":  # elsewhere it would be the whole process
        me = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, me)
        os.setpriority(os.PRIO_PROCESS, me, min(19, before + niceness))


def strike(*, stop: bool) -> None:
    """Kills this process, or stops it, without giving it a chance to do anything.

    Args:
      stop: Stop it: it goes on where it was when somebody sends it SIGCONT.

    Raises:
      UnsupportedOptionError: There is no stopping on this system.
    """
    if stop:
        require("the fault 'stop'", "'kill'")
        os.kill(os.getpid(), signal.SIGSTOP)
    elif POSIX:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os.abort()


def require(what: str, instead: str) -> None:
    """Raises UnsupportedOptionError where this is no POSIX system.

    Args:
      what: What needs one, to begin a sentence with.
      instead: What to do without.
    """
    if not POSIX:
        raise UnsupportedOptionError(
            f"{what} needs a POSIX system, such as Linux. Use {instead} instead."
        )


def absolute(path: str, system: ModuleType = os.path) -> str:
    """Returns a local path absolute and with "/" between its parts; a URL as it is.

    Args:
      path: As the user has given it.
      system: `posixpath`, or `ntpath`.
    """
    return path if "://" in path else slashes(system.abspath(path), system)


def slashes(path: str, system: ModuleType = os.path) -> str:
    """Returns a path with "/" between its parts, where the system takes that, too."""
    return path if system.sep == "/" else path.replace(system.sep, "/")
