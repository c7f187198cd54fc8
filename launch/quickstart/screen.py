"""Tells what happens: one line each with the time, and on a terminal a line that moves below."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

WIDTH_OF_LOGS = 110  # in CI nobody tells how wide the reader's screen is


class Screen:
    """Standard output. A ``with`` block shows the moving line."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = WIDTH_OF_LOGS
        self._began = time.monotonic()
        self._status = self.console.status("") if self.console.is_terminal else None

    def print(self, text: str = "", style: str = "") -> None:
        """Prints `text` as it is, never cut and never wrapped."""
        self.console.print(Text(text, style), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """Prints `text` with the seconds since the beginning."""
        seconds = f"{time.monotonic() - self._began:6.1f} s  "
        self.console.print(Text.assemble((seconds, "dim"), (text, style)), soft_wrap=True)

    def show(self, text: str) -> None:
        """Shows `text` on the moving line, if there is one."""
        if self._status:
            self._status.update(Text(text))

    def __enter__(self) -> Screen:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()
