"""The machine's services apart from files: time, random tokens, the process's identity.

The simulated packages get these only from here, as ``host.now()``, so that a simulator can replace
them.
"""

from __future__ import annotations

import os
import secrets
import socket
import time


def monotonic() -> float:
    """Returns seconds on a clock that never goes back; its zero is arbitrary."""
    return time.monotonic()


def now() -> float:
    """Returns seconds since 1970, by this machine's clock."""
    return time.time()


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def token(size: int) -> str:
    """Returns `size` unpredictable bytes, as hexadecimal digits."""
    return secrets.token_hex(size)


def name() -> str:
    """Returns the name of this machine."""
    return socket.gethostname()


def pid() -> int:
    """Returns the id of this process."""
    return os.getpid()
