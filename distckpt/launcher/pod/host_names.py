"""Waits until the names of all workers can be resolved.

A pod's name appears in the DNS when the pod has an address, and resolvers may cache negative
answers for a while.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from distckpt.errors import ConfigurationError, DeadlineExceededError

_PAUSE = 1.0  # seconds between two look-ups of one name
# The most look-ups at a time; a job may have a thousand workers.
_THREADS = 64
SAY_EVERY = 10.0  # seconds


def wait_for_names(
    hosts: Sequence[str], own: str, deadline: float, say: Callable[[str], None]
) -> None:
    """Returns when all of `hosts` can be resolved.

    Args:
      hosts: The names, or addresses, of all workers.
      own: This worker's name, one of `hosts`.
      deadline: Seconds to wait.
      say: Called every ten seconds with a message that names the missing workers.

    Raises:
      ConfigurationError: Neither this worker's own name nor any other could ever be resolved: the
        names are wrong.
      DeadlineExceededError: Some names could not be resolved; the text lists them.
    """
    others = sorted(set(hosts) - {own})
    look = _Look(others, own)
    end = time.monotonic() + deadline
    try:
        while missing := look.missing():
            left = end - time.monotonic()
            if left <= 0:
                is_wrong = len(missing) == len(others) and not look.knows_own()
                raise _too_late(missing, deadline, is_wrong)
            if not look.wait(min(left, SAY_EVERY)):
                say(f"waiting for the names of {_some(missing)} to be resolved")
    finally:
        look.stop()


class _Look:
    """Looks up each name repeatedly, in threads, because one look-up may take very long.

    The threads are daemons: a look-up that hangs does not keep the program from ending.

    Args:
      others: The names to wait for.
      own: A name that is looked up, but not waited for.
    """

    def __init__(self, others: Sequence[str], own: str) -> None:
        hosts = [*others, own]
        self._own = own
        self._own_is_known = False
        self._missing = set(others)
        self._todo = deque((0.0, host) for host in hosts)  # when to look next, and for which name
        self._changed = threading.Condition()
        self._stop = threading.Event()
        for started in range(min(len(hosts), _THREADS)):
            try:
                threading.Thread(target=self._look_up_all, daemon=True).start()
            except RuntimeError:  # one thread is enough
                if not started:
                    raise
                break

    def missing(self) -> list[str]:
        """Returns the names of other workers that have not been resolved yet."""
        with self._changed:
            return sorted(self._missing)

    def knows_own(self) -> bool:
        """Returns whether the own name has been resolved."""
        return self._own_is_known

    def wait(self, seconds: float) -> bool:
        """Waits until no name is missing; returns whether none is missing."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._missing, seconds)

    def stop(self) -> None:
        """Ends the look-ups."""
        self._stop.set()

    def _look_up_all(self) -> None:
        """Looks up names until the other threads are busy with all that are left."""
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
            self._own_is_known |= host == self._own
            self._missing.discard(host)
            self._changed.notify_all()


def _too_late(missing: Sequence[str], deadline: float, is_wrong: bool) -> Exception:
    text = f"After {deadline:g} s, these names cannot be resolved: {_some(missing)}."
    if is_wrong:
        return ConfigurationError(
            f"{text} Neither can this worker's own, so the names are likely wrong. Check that the "
            "headless Service exists, has publishNotReadyAddresses: true, selects the pods, and is "
            "the subdomain of the pods and the value of DISTCKPT_SERVICE (or --service)."
        )
    return DeadlineExceededError(f"{text} Check that these pods have been started.")


def _some(hosts: Sequence[str], most: int = 8) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more
