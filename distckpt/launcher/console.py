"""The launcher's standard output and error: named lines of workers, and its own messages."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import click

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red", "bright_cyan")
_RESET = b"\x1b[0m"


class Outlet:
    """One file descriptor that text goes to. Never raises: what nobody can read is dropped.

    Writes straight to the descriptor, because a thread that is blocked inside a buffered Python
    stream holds its lock, and the interpreter then cannot exit.
    """

    def __init__(self, fd: int | None, coloured: bool = False) -> None:
        """Describes the descriptor.

        Args:
          fd: File descriptor; None drops everything.
          coloured: Whether it understands ANSI colours.
        """
        self._fd = fd
        self.coloured = coloured

    @classmethod
    def of(cls, stream: TextIO | None, environ: Mapping[str, str]) -> Outlet:
        """Returns the outlet of a standard stream.

        Coloured on a terminal, unless ``NO_COLOR`` (https://no-color.org) or ``TERM=dumb`` is set.

        Args:
          stream: ``sys.__stdout__`` or ``sys.__stderr__``; None when it was closed at the start.
          environ: The environment.
        """
        if stream is None:
            return cls(None)
        plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
        return cls(stream.fileno(), stream.isatty() and not plain)

    def write(self, data: bytes) -> None:
        """Writes all of `data`; waits as long as the reader takes."""
        while data and self._fd is not None:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody made the terminal non-blocking
                select.select([], [self._fd], [], 1.0)
            except OSError:  # the reader has gone; training goes on without it
                self._fd = None


class Console:
    """Shows the lines of all workers."""

    def __init__(self, out: Outlet, err: Outlet) -> None:
        """Shows workers' standard output on `out`; their standard error, and messages, on `err`."""
        self._outlets = {"stdout": out, "stderr": err}

    @classmethod
    def of_process(cls) -> Console:
        """Returns the console on this process's standard output and error."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # what was printed before must come before
        return cls(Outlet.of(sys.__stdout__, os.environ), Outlet.of(sys.__stderr__, os.environ))

    def show(self, index: int, name: str, stream: str, lines: Sequence[bytes]) -> None:
        """Writes lines of a worker, each with "[name] " before it.

        Args:
          index: Which worker; decides the colour.
          name: What to call it.
          stream: "stdout" or "stderr".
          lines: Lines without line ends.
        """
        if not lines:
            return
        outlet = self._outlets[stream]
        prefix, end = f"[{name}]".encode(), b"\n"
        if outlet.coloured:
            colour = _COLOURS[index % len(_COLOURS)]
            prefix = click.style(prefix.decode(), fg=colour).encode()
            # A worker that leaves a colour on must not colour its neighbours.
            end = _RESET + end if any(b"\x1b" in line for line in lines) else end
        prefix += b" "
        outlet.write(prefix + (end + prefix).join(lines) + end)

    def say(self, text: str) -> None:
        """Writes a message of the launcher's own."""
        self._outlets["stderr"].write(f"distckpt launch: {text}\n".encode(errors="replace"))
