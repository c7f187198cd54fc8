"""Bar charts as SVG, by hand: no library is needed, and a difference can be reviewed as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT = 780, 240, 100
_BAR, _GAP, _TITLE, _PANEL = 16, 7, 34, 30
_OURS, _OTHERS = "#1a6fb0", "#b4bcc4"
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}"
    ".title{font-size:15px;font-weight:600}.panel{font-weight:600}.value{fill:#444}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.value{fill:#bbb}path{stroke:#ccc}"
    "rect:first-of-type{fill:#1e2129}"  # the background, which is the first
    f'[fill="{_OTHERS}"]{{fill:#6b757f}}}}'
)


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: its median, the least and the greatest, and whether it is distckpt's."""

    label: str
    median: float
    least: float
    most: float
    ours: bool


@dataclasses.dataclass(frozen=True)
class Panel:
    """Bars under one heading; all panels of a chart have the same scale."""

    title: str
    bars: Sequence[Bar]


def chart(
    title: str,
    panels: Sequence[Panel],
    tell: Callable[[float], str],
    *,
    logarithmic: bool,
    width: int = _WIDTH,
) -> str:
    """Returns the SVG of horizontal bars, with a thin line from the least to the greatest.

    Args:
      title: What is drawn, with the unit.
      panels: What to draw; numbers must be positive if `logarithmic`.
      tell: Writes a number as text.
      logarithmic: Whether each factor of ten has the same length.
      width: In pixels.
    """
    scale = _scale([bar for panel in panels for bar in panel.bars], logarithmic, width)
    parts, y = [f'<text class="title" x="12" y="22">{escape(title)}</text>'], _TITLE
    for panel in panels:
        parts.append(f'<text class="panel" x="12" y="{y + 18}">{escape(panel.title)}</text>')
        y += _PANEL
        for bar in panel.bars:
            parts.append(_bar(bar, y, scale, tell))
            y += _BAR + _GAP
        y += _GAP
    height = y + 8
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _scale(bars: Sequence[Bar], logarithmic: bool, width: int) -> Callable[[float], float]:
    """Returns the function from numbers to lengths."""
    room = width - _LEFT - _RIGHT
    most = max((bar.most for bar in bars), default=1.0) or 1.0
    if not logarithmic:
        return lambda number: room * max(0.0, number) / most
    # The shortest bar, too, is to be seen.
    least = 10 ** math.floor(math.log10(min((b.least for b in bars), default=0.1)) - 0.2)
    decades = math.log10(most / least)
    return lambda number: room * math.log10(max(number, least) / least) / decades


def _bar(bar: Bar, y: int, scale: Callable[[float], float], tell: Callable[[float], str]) -> str:
    length, first, last = scale(bar.median), scale(bar.least), scale(bar.most)
    middle, base = y + _BAR / 2, y + _BAR - 4
    weight = ' style="font-weight:600"' if bar.ours else ""
    return (
        f'<text x="{_LEFT - 8}" y="{base}" text-anchor="end"{weight}>{escape(bar.label)}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{_BAR}" '
        f'fill="{_OURS if bar.ours else _OTHERS}"/>'
        f'<path d="M{_LEFT + first:.1f} {middle}H{_LEFT + last:.1f}" stroke="#333"/>'
        f'<text class="value" x="{_LEFT + max(length, last) + 6:.1f}" y="{base}">'
        f"{escape(tell(bar.median))}</text>"
    )
