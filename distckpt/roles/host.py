"""What the roles ask of the machine, apart from files: the time, chance, who this process is.

They ask for it here alone, by ``host.now()``, so that a simulator can answer in the machine's
place.
"""

from __future__ import annotations

import os
import secrets
import socket
import time


def monotonic() -> float:
    """Returns seconds on a clock that never goes back; its zero means nothing."""
    return time.monotonic()


def now() -> float:
    """Returns seconds since 1970, as far as this machine knows."""
    return time.time()


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def token(size: int) -> str:
    """Returns `size` bytes, as hexadecimal digits, that nobody can predict."""
    return secrets.token_hex(size)


def name() -> str:
    """Returns the name of this machine."""
    return socket.gethostname()


def pid() -> int:
    """Returns the id of this process."""
    return os.getpid()
