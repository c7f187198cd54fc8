"""Forwards workers' output to the console, the log files and memory, on a separate thread.

The thread is needed because the console can block forever (a pager, a stopped terminal), while the
supervision of the workers must continue. One thread serves all workers: it reads one chunk of each
in turn, so a worker that floods its pipe does not starve the others.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque

from distckpt.launcher.output.console import Console
from distckpt.launcher.output.lines import LineAssembler
from distckpt.launcher.output.worker_output import WorkerOutput

_CHUNK = 64 * 1024

# More than any pipe can hold: at most one MiB (pipe(7)).
_LAST_TURNS = 32

# An unfinished line is shown after this many seconds; also how often a progress bar is shown.
PATIENCE = 1.0


class _Stream:
    """One of the two pipes of one worker."""

    def __init__(self, fd: int, output: WorkerOutput, name: str) -> None:
        self.fd = fd
        self.output = output
        self.name = name
        self.lines = LineAssembler()
        self.since = 0.0


class Pump:
    """The thread and its pipes. Add the pipes, call `start`, and finally `finish`."""

    def __init__(self, console: Console | None) -> None:
        """Prepares the pump; without a `console` nothing is shown."""
        self._console = console
        self._selector = selectors.DefaultSelector()
        self._streams: list[_Stream] = []
        self._outputs: list[WorkerOutput] = []
        self._messages: deque[str] = deque()
        self._turns_left: int | None = None
        # The thread closes this pipe when it is done; nothing may write to it after that.
        self._lock = threading.Lock()
        self._closed = False
        self._wake_reader, self._wake_writer = os.pipe()
        for fd in (self._wake_reader, self._wake_writer):
            os.set_blocking(fd, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        # A daemon, so that a console that blocks forever does not keep the launcher from exiting.
        self._thread = threading.Thread(target=self._run, name="distckpt-output", daemon=True)

    def add(self, fd: int, output: WorkerOutput, name: str) -> None:
        """Takes ownership of the reading end of a pipe, and of `output`.

        Args:
          fd: File descriptor.
          output: Where to record the data.
          name: "stdout" or "stderr".
        """
        os.set_blocking(fd, False)
        self._outputs.append(output)
        stream = _Stream(fd, output, name)
        self._streams.append(stream)
        self._selector.register(fd, selectors.EVENT_READ, stream)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def say(self, text: str) -> None:
        """Shows a message of the launcher, after all output read so far. Never blocks.

        Messages after `finish` are dropped.
        """
        self._messages.append(text)
        self._wake()

    def finish(self, seconds: float) -> bool:
        """Forwards what is still in the pipes, and ends; call this after the workers have ended.

        Does not wait for the end of the pipes: a process that escaped may hold them open and
        continue to write.

        Args:
          seconds: How long to wait. If the console blocks, the thread continues after that.

        Returns:
          Whether all output is forwarded. If not, call again.
        """
        if self._turns_left is None:
            self._turns_left = _LAST_TURNS
            if self._thread.ident is None:
                self._close()
                return True
            self._wake()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):  # a full pipe wakes it, too
            if not self._closed:
                os.write(self._wake_writer, b"!")

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._close()

    def _turn(self) -> bool:
        """Forwards one chunk of every readable stream; returns whether to continue."""
        finishing = self._turns_left is not None
        pending = any(stream.lines.pending for stream in self._streams)
        ready = self._selector.select(0 if finishing else PATIENCE / 4 if pending else None)
        streams = [key.data for key, _ in ready if key.data is not None]
        if len(streams) < len(ready):
            os.read(self._wake_reader, 4096)
        for stream in streams:
            self._carry(stream)
        self._show_stale()
        self._show_messages()
        if self._turns_left is None or not finishing:
            return True
        self._turns_left -= 1
        return bool(streams) and self._turns_left > 0

    def _carry(self, stream: _Stream) -> None:
        try:
            data = os.read(stream.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._show(stream, stream.lines.flush())
            self._drop(stream)
            return
        complaint = stream.output.record(data)
        if complaint:
            self.say(complaint)
        if not stream.lines.pending:
            stream.since = time.monotonic()
        self._show(stream, stream.lines.feed(data))

    def _show_stale(self) -> None:
        now = time.monotonic()
        for stream in self._streams:
            if stream.lines.pending and now - stream.since >= PATIENCE:
                self._show(stream, stream.lines.flush())

    def _show(self, stream: _Stream, lines: list[bytes]) -> None:
        if not lines or self._console is None:
            return
        began = time.monotonic()
        self._console.show(stream.output.index, stream.output.name, stream.name, lines)
        stream.since = now = time.monotonic()
        for other in self._streams:  # a blocked console does not make lines stale
            other.since += now - began if other is not stream else 0.0

    def _show_messages(self) -> None:
        while self._messages:
            text = self._messages.popleft()
            if self._console is not None:
                self._console.say(text)

    def _drop(self, stream: _Stream) -> None:
        self._selector.unregister(stream.fd)
        self._streams.remove(stream)
        os.close(stream.fd)

    def _close(self) -> None:
        for stream in list(self._streams):
            self._show(stream, stream.lines.flush())
            self._drop(stream)
        self._show_messages()
        for output in self._outputs:
            output.close()
        self._selector.close()
        with self._lock:
            self._closed = True
            os.close(self._wake_reader)
            os.close(self._wake_writer)
