"""Reads the first message of each of many connections, without waiting for any one of them."""

from __future__ import annotations

import contextlib
import errno
import json
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Any

LONGEST = 4096  # the most bytes of a message
_PATIENCE = 10.0  # seconds that a connection has to send its first message
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class FirstMessages:
    """The connections to a listening socket, each with the message that it sends first.

    A connection that sends nothing, or sends it slowly, keeps no other connection waiting. It is
    closed after ten seconds, or earlier if this process has no file descriptor left.

    Args:
      listener: The socket. It becomes non-blocking, and so do the connections.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._unread: dict[socket.socket, _Unread] = {}  # the oldest first

    def wait(self, seconds: float) -> Iterator[tuple[socket.socket, dict[str, Any] | None]]:
        """Waits until something happens; yields new first messages, and connections that ended.

        A connection that has been yielded belongs to the caller. It is yielded once more, with
        None, when the other side sends anything else or closes it, unless it was closed here.

        Args:
          seconds: The most to wait.
        """
        self._drop_late()
        for key, _ in self._selector.select(min(seconds, self._next_late())):
            link = key.fileobj
            assert isinstance(link, socket.socket)
            if link.fileno() < 0:
                continue  # closed since the selection
            if link is self._listener:
                self._accept()
            elif link not in self._unread:
                self._selector.unregister(link)
                yield link, None
            elif (message := self._read(link)) is not None:
                del self._unread[link]
                yield link, message

    def close(self, link: socket.socket) -> None:
        """Closes a connection."""
        self._unread.pop(link, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link)
        link.close()

    def end(self) -> None:
        """Closes the connections whose first message has not come. The others stay open."""
        for link in list(self._unread):
            self.close(link)
        self._selector.close()

    def _accept(self) -> None:
        """Accepts all connections that have come."""
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in _FULL:
                    return  # none is left, or one was given up meanwhile
                if not self._unread:
                    raise
                self.close(next(iter(self._unread)))
                continue
            link.setblocking(False)
            self._unread[link] = _Unread(time.monotonic() + _PATIENCE)
            self._selector.register(link, selectors.EVENT_READ)

    def _read(self, link: socket.socket) -> dict[str, Any] | None:
        """Returns the message if it is complete; closes a connection that sends no message."""
        unread = self._unread[link]
        try:
            more = link.recv(LONGEST)
        except BlockingIOError:
            return None
        except OSError:
            more = b""
        unread.data += more
        message = parse(unread.data) if unread.data.endswith(b"\n") else None
        if message is None and (
            not more or unread.data.endswith(b"\n") or len(unread.data) > LONGEST
        ):
            self.close(link)
        return message

    def _drop_late(self) -> None:
        now = time.monotonic()
        for link in [link for link, unread in self._unread.items() if unread.until <= now]:
            self.close(link)

    def _next_late(self) -> float:
        """Returns the seconds until the first connection must have sent its message."""
        first = next(iter(self._unread.values()), None)
        return max(0.0, first.until - time.monotonic()) if first else _PATIENCE


class _Unread:
    """What has come of a first message, and until when the rest may come."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.data = b""


def parse(data: bytes) -> dict[str, Any] | None:
    """Returns the message in a line; None if there is none."""
    if len(data) > LONGEST:
        return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
