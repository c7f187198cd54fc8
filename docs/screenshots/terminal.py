"""A terminal that records its content, and draws it as SVG."""

from __future__ import annotations

import codecs
import fcntl
import io
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Sequence

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COLUMNS = 124
_ROWS = 50
_PAUSE = 0.03  # seconds without output after which a picture is complete
_CUT = re.compile(r"\x1b(\[[?0-9;]*)?\Z")
_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n])|([^\x1b\r\n]+)")
# rich's picture downloads its font; a page of documentation should not.
_FORMAT = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Screen:
    """The lines that a program has written to a terminal. Supports what rich and click use."""

    def __init__(self) -> None:
        self._cells: list[list[tuple[str, str]]] = [[]]  # (character, its colour sequence)
        self._row = self._column = 0
        self._style = ""

    def feed(self, text: str) -> None:
        """Processes the output of the program."""
        for parameters, command, control, plain in _TOKEN.findall(text):
            if command:
                self._do(command, parameters)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._down(1)
            for character in plain:
                self._put(character)

    def lines(self) -> list[str]:
        """Returns the content, with colours that rich understands, without trailing empty lines."""
        shown = [_coloured(row) for row in self._cells]
        while shown and not Text.from_ansi(shown[-1]).plain.strip():
            shown.pop()
        return shown

    def _do(self, command: str, parameters: str) -> None:
        if command == "m":
            reset = parameters in ("", "0")
            self._style = "" if reset else f"{self._style};{parameters}"
        elif command == "A":
            self._row = max(0, self._row - int(parameters or 1))
        elif command == "B":
            self._down(int(parameters or 1))
        elif command == "K":
            row = self._cells[self._row]
            del row[0 if parameters == "2" else self._column :]

    def _down(self, lines: int) -> None:
        self._row += lines
        while len(self._cells) <= self._row:
            self._cells.append([])

    def _put(self, character: str) -> None:
        row = self._cells[self._row]
        row.extend([(" ", "")] * (self._column + 1 - len(row)))
        row[self._column] = (character, self._style)
        self._column += 1


def _coloured(row: list[tuple[str, str]]) -> str:
    parts = []
    for style, cells in itertools.groupby(row, key=lambda cell: cell[1]):
        text = "".join(character for character, _ in cells)
        parts.append(f"\x1b[0{style}m{text}\x1b[0m" if style else text)
    return "".join(parts)


def run(
    words: Sequence[str],
    cwd: str,
    environment: dict[str, str],
    best: Callable[[str], int] = lambda text: 0,
    columns: int = COLUMNS,
) -> list[str]:
    """Runs a program in a terminal, and returns the lines that it shows.

    Args:
      words: The command.
      cwd: Where it runs.
      environment: Its environment.
      best: Rates a content; the last content with the highest rating is returned.
      columns: The width of the terminal.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    environment = {**environment, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        words, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown: list[str] = []
    for now in _pictures(ours):
        if best("\n".join(now)) >= best("\n".join(shown)):
            shown = now
    process.wait()
    os.close(ours)
    return shown


def _pictures(terminal: int) -> Iterator[list[str]]:
    """Yields the content whenever the program pauses, and at its end."""
    screen, rest = Screen(), ""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        if not select.select([terminal], [], [], _PAUSE)[0]:
            yield screen.lines()
            continue
        try:
            text = rest + decoder.decode(os.read(terminal, 65536))
        except OSError:  # the program has ended
            break
        whole = _CUT.sub("", text)  # a sequence may continue in the next read
        rest = text[len(whole) :]
        screen.feed(whole)
    yield screen.lines()


def draw(path: str, title: str, lines: Sequence[str], columns: int = COLUMNS) -> None:
    """Draws lines as a picture of a terminal.

    Args:
      path: The SVG file.
      title: The title of the terminal.
      lines: Its content, with colours.
      columns: Its width.
    """
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    for line in [*lines, ""]:
        console.print(Text.from_ansi(line), soft_wrap=False, highlight=False)
    name = os.path.splitext(os.path.basename(path))[0]
    console.save_svg(path, title=title, code_format=_FORMAT, unique_id=f"terminal-{name}")
