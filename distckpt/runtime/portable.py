"""Functions that some operating systems lack, with replacements.

Only this module, the launcher and `signals` use functions that only POSIX has
(`tests/unit/test_portable.py`). distckpt is tested on Linux. The environment variable
DISTCKPT_POSIX=0 makes Linux take the other branches here, so that tests cover them, too.
"""

from __future__ import annotations

import contextlib
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

# For all calls of `os.open`: children do not inherit the file, and bytes are not translated.
OPEN = os.O_CLOEXEC if POSIX else getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
# For a path that may be a pipe without a writer.
DO_NOT_WAIT = os.O_NONBLOCK if POSIX else 0
# For flushing a file that another process wrote; other systems flush only writable files.
TO_FLUSH = OPEN | (os.O_RDONLY if POSIX else os.O_RDWR)

# Files that a process with TensorFlow opens besides its connections to other workers, generously.
_OTHER_FILES = 512

# Errors of fsync() of a directory on file systems that do not need it.
_NO_DIRECTORY_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def flush_directory(path: str) -> None:
    """Flushes the names in a directory; does nothing where that is not supported.

    Raises:
      OSError: It failed.
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
    """Gives a file another name, if the name is free.

    Raises:
      FileExistsError: The name is taken.
      OSError: ENOTSUP where links do not exist.
    """
    if not POSIX:
        raise OSError(errno.ENOTSUP, "no links on this system", target)
    os.link(source, target)


def user() -> str:
    """Returns the user's name, else the user's number, else "somebody"."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return str(os.getuid()) if POSIX else "somebody"


def in_forked_child(function: Callable[[], None]) -> None:
    """Registers `function` to be called in each forked child; does nothing without forks."""
    if POSIX:
        os.register_at_fork(after_in_child=function)


def lower_priority(niceness: int) -> None:
    """Lowers the priority of this thread, and of threads that it will start."""
    if POSIX and sys.platform == "linux":  # elsewhere it would affect the whole process
        me = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, me)
        os.setpriority(os.PRIO_PROCESS, me, min(19, before + niceness))


def allow_files(count: int) -> None:
    """Lets this process open `count` files besides its others, as far as its user may."""
    if not POSIX:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def strike(*, stop: bool) -> None:
    """Kills or stops this process at once, without any clean-up.

    Args:
      stop: Stop it: it continues on SIGCONT.

    Raises:
      UnsupportedOptionError: This system cannot stop processes.
    """
    if stop:
        require("the fault 'stop'", "'kill'")
        os.kill(os.getpid(), signal.SIGSTOP)
    elif POSIX:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os.abort()


def require(what: str, instead: str) -> None:
    """Raises UnsupportedOptionError on systems other than POSIX.

    Args:
      what: What needs POSIX: the beginning of a sentence.
      instead: What to use instead.
    """
    if not POSIX:
        raise UnsupportedOptionError(
            f"{what} needs a POSIX system, such as Linux. Use {instead} instead."
        )


def absolute(path: str, system: ModuleType = os.path) -> str:
    """Returns a local path absolute and with "/" between its parts; a URL as it is.

    Args:
      path: The user's path.
      system: `posixpath`, or `ntpath`.
    """
    return path if "://" in path else slashes(system.abspath(path), system)


def shown(path: str, place: str) -> str:
    """Returns the user's `path` if it leads to the absolute `place`, else `place`.

    A relative path leads elsewhere after a change of the working directory.
    """
    try:
        return path if absolute(path) == place else place
    except OSError:  # the working directory was deleted
        return place


def slashes(path: str, system: ModuleType = os.path) -> str:
    """Returns a path with "/" between its parts, if the system accepts that."""
    return path if system.sep == "/" else path.replace(system.sep, "/")
