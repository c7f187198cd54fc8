"""The launcher's standard output and error: workers' lines with their names, and its messages."""

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
    """A file descriptor for text. Never raises: text for a closed descriptor is dropped.

    Writes directly to the descriptor: a thread blocked inside a buffered Python stream would hold
    the stream's lock, and the interpreter could not exit.
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
        """Writes all of `data`; waits for the reader as long as necessary."""
        while data and self._fd is not None:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process made the terminal non-blocking
                select.select([], [self._fd], [], 1.0)
            except OSError:  # the reader has ended; training continues without it
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
                stream.flush()  # earlier output must come first
        return cls(Outlet.of(sys.__stdout__, os.environ), Outlet.of(sys.__stderr__, os.environ))

    def show(self, index: int, name: str, stream: str, lines: Sequence[bytes]) -> None:
        """Writes lines of a worker, each prefixed with "[name] ".

        Args:
          index: The worker's index, which selects the colour.
          name: The worker's name.
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
            # A colour that a worker leaves on must not affect other workers' lines.
            end = _RESET + end if any(b"\x1b" in line for line in lines) else end
        prefix += b" "
        outlet.write(prefix + (end + prefix).join(lines) + end)

    def say(self, text: str) -> None:
        """Writes a message of the launcher."""
        self._outlets["stderr"].write(f"distckpt launch: {text}\n".encode(errors="replace"))
