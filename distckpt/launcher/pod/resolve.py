"""Waits until the names of all workers can be resolved.

A pod's name appears in the DNS when the pod has an address, and a resolver may remember for a while
that there was none.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from distckpt.errors import ConfigurationError, DeadlineExceededError

_PAUSE = 1.0  # seconds between two looks at one name
# At the most so many look-ups at a time; a job may have a thousand workers.
_THREADS = 64
SAY_EVERY = 10.0  # seconds


def wait_for_names(
    hosts: Sequence[str], own: str, deadline: float, say: Callable[[str], None]
) -> None:
    """Returns when all of `hosts` can be resolved.

    Args:
      hosts: The names, or addresses, of all workers.
      own: This worker's among them.
      deadline: Seconds to wait.
      say: Is told every ten seconds who is still waited for.

    Raises:
      ConfigurationError: No other's name could be resolved at any time: the names are wrong.
      DeadlineExceededError: Some could not; the text names them.
    """
    others = sorted(set(hosts) - {own})
    look = _Look(others)
    end = time.monotonic() + deadline
    try:
        while missing := look.missing():
            left = end - time.monotonic()
            if left <= 0:
                raise _too_late(missing, others, deadline)
            if not look.wait(min(left, SAY_EVERY)):
                say(f"waiting for the names of {_some(missing)} to be resolved")
    finally:
        look.stop()


class _Look:
    """Looks names up, in threads, for one look-up may take very long; each name again and again.

    The threads are daemons: a look-up that hangs does not keep the program from ending.

    Args:
      hosts: The names.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._missing = set(hosts)
        self._todo = deque((0.0, host) for host in hosts)  # when to look next, and for whom
        self._changed = threading.Condition()
        self._stop = threading.Event()
        for _ in range(min(len(hosts), _THREADS)):
            threading.Thread(target=self._look_up_all, daemon=True).start()

    def missing(self) -> list[str]:
        """Returns the names that have not been resolved yet."""
        with self._changed:
            return sorted(self._missing)

    def wait(self, seconds: float) -> bool:
        """Waits until there is none; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._missing, seconds)

    def stop(self) -> None:
        """Looks no further."""
        self._stop.set()

    def _look_up_all(self) -> None:
        """Looks up as long as there is a name that no other thread is busy with."""
        while True:
            try:
                due, host = self._todo.popleft()
            except IndexError:
                return
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._look_up(host)

    def _look_up(self, host: str) -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            self._todo.append((time.monotonic() + _PAUSE, host))
            return
        with self._changed:
            self._missing.discard(host)
            self._changed.notify_all()


def _too_late(missing: Sequence[str], others: Sequence[str], deadline: float) -> Exception:
    text = f"After {deadline:g} s these names cannot be resolved: {_some(missing)}."
    if len(missing) == len(others):
        return ConfigurationError(
            f"{text} That is all the others, so the names are likely wrong: look whether the "
            "headless Service exists, has publishNotReadyAddresses: true, selects the pods, and is "
            "the subdomain of the pods and the value of DISTCKPT_SERVICE (or --service)."
        )
    return DeadlineExceededError(f"{text} Look whether these pods have been started.")


def _some(hosts: Sequence[str], most: int = 8) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more
