"""Hook of MkDocs: draws the sequence diagrams in the pages as SVG.

The diagrams are written in Mermaid's language, which many viewers of Markdown draw. The theme would
load Mermaid's script from another server, so this hook draws them when the site is built. It knows
only the part of the language that the pages use, and refuses anything else. Their colours are in
``site.css``.
"""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import Any

from pymdownx.superfences import SuperFencesException

_LEFT, _STEP, _MARGIN = 120, 270, 20  # the first lifeline; the next ones; beside the outer ones
_LINE, _GAP, _LETTER = 16, 14, 6.6  # height of a line of text; between rows; width of a letter
_PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
_MESSAGE = re.compile(r"(\w+)->>(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+)(?:,(\w+))?: (.+)")
_OPENING = re.compile(r"(loop|opt|par)\b ?(.*)")


def on_config(config: Any) -> None:
    """Tells the extension that reads code blocks to draw those of the language ``mermaid``."""
    fence = {"name": "mermaid", "class": "diagram", "format": _format}
    config["mdx_configs"].setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]


def _format(source: str, *_: Any, **__: Any) -> str:
    try:
        return f'<div class="diagram">{draw(source)}</div>'
    except ValueError as error:
        raise SuperFencesException(str(error)) from error


def draw(source: str) -> str:
    """Returns a sequence diagram as SVG.

    Args:
      source: The diagram in Mermaid's language.

    Raises:
      ValueError: It has a line that is not understood, or a block that does not end.
    """
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    if lines[:1] != ["sequenceDiagram"]:
        raise ValueError("Only sequence diagrams can be drawn.")
    drawing = _Drawing()
    for line in lines[1:]:
        drawing.add(line)
    return drawing.svg()


class _Drawing:
    """Rows from top to bottom, on lifelines from left to right."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._rows: list[str] = []
        self._frames: list[str] = []
        self._open: list[int] = []  # where each block that has not ended begins
        self._y = 60

    def add(self, line: str) -> None:
        """Adds what one line describes."""
        if found := _PARTICIPANT.fullmatch(line):
            self._names[found[1]] = found[2]
        elif found := _MESSAGE.fullmatch(line):
            self._message(self._x(found[1]), self._x(found[2]), found[3])
        elif found := _NOTE.fullmatch(line):
            self._note(self._x(found[1]), self._x(found[2] or found[1]), found[3])
        elif found := _OPENING.fullmatch(line):
            self._open.append(self._y)
            self._label(found[1], found[2])
        elif line == "and" and self._open:
            self._frames.append(
                f'<path class="divide" d="M{self._inset()} {self._y}H{self._far()}"/>'
            )
            self._y += _GAP
        elif line == "end" and self._open:
            self._end()
        else:
            raise ValueError(f"This line of a sequence diagram is not understood: {line}")

    def svg(self) -> str:
        """Returns the picture.

        Raises:
          ValueError: A block has not ended.
        """
        if self._open:
            raise ValueError("A block of a sequence diagram has no end.")
        width, bottom = self._width(), self._y + 8
        names = list(self._names.values())
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 4}" '
            f'width="{width}" height="{bottom + 4}" role="img" '
            f'aria-label="Messages between {escape(", ".join(names))}">'
        )
        lifelines = [
            f'<path class="lifeline" d="M{x} 36V{bottom}"/>'
            f'<rect class="participant" x="{x - 90}" y="6" width="180" height="30" rx="4"/>'
            f'<text class="participant" x="{x}" y="26">{escape(name)}</text>'
            for x, name in zip(map(self._x, self._names), names, strict=True)
        ]
        return "".join([head, *self._frames, *lifelines, *self._rows, "</svg>"])

    def _x(self, name: str) -> int:
        if name not in self._names:
            raise ValueError(f"A sequence diagram has no participant {name}.")
        return _LEFT + _STEP * list(self._names).index(name)

    def _width(self) -> int:
        return 2 * _LEFT + _STEP * (len(self._names) - 1)

    def _inset(self) -> int:
        return 4 + 6 * (len(self._open) - 1)

    def _far(self) -> int:
        return self._width() - self._inset()

    def _message(self, start: int, end: int, text: str) -> None:
        way = 1 if start < end else -1
        self._text((start + end) / 2, text, abs(end - start) - _MARGIN)
        self._rows.append(
            f'<path class="message" d="M{start} {self._y}H{end - 2 * way}"/>'
            f'<path class="head" d="M{end} {self._y}l{-9 * way} -4v8z"/>'
        )
        self._y += _GAP

    def _note(self, start: int, end: int, text: str) -> None:
        left, width = start - 100, end - start + 200
        at, top = len(self._rows), self._y - 4
        self._text((start + end) / 2, text, width - _MARGIN)
        box = f'<rect class="note" x="{left}" y="{top}" width="{width}" height="{self._y - top}"/>'
        self._rows.insert(at, box)
        self._y += _GAP

    def _label(self, kind: str, text: str) -> None:
        self._y += _LINE + 4
        self._rows.append(
            f'<text class="label" x="{self._inset() + 8}" y="{self._y - 6}">'
            f"<tspan>{kind}</tspan> {escape(text)}</text>"
        )
        self._y += 4

    def _end(self) -> None:
        x, top = self._inset(), self._open[-1]
        self._frames.append(
            f'<rect class="frame" x="{x}" y="{top}" width="{self._far() - x}" '
            f'height="{self._y - top}" rx="4"/>'
        )
        self._open.pop()
        self._y += _GAP

    def _text(self, x: float, text: str, width: float) -> None:
        for line in textwrap.wrap(text, int(width / _LETTER)):
            self._y += _LINE
            self._rows.append(f'<text x="{x:g}" y="{self._y - 4}">{escape(line)}</text>')
        self._y += 2
