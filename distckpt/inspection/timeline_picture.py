"""Draws the last saves by worker and phase, to show stragglers at a glance.

Needs matplotlib: ``pip install "distckpt[timeline]"``. An HTML page contains the picture as SVG and
needs no other file.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Any

from distckpt.core.protocol import phases
from distckpt.errors import ConfigurationError, UnsupportedOptionError
from distckpt.inspection.timeline import Save
from distckpt.storage.local import LocalStorage

FORMS = ("html", "png", "svg")
# A worker's own phases have strong colours, waiting is grey.
_COLOURS = {
    phases.HOLD: "#4269d0",
    phases.READ: "#6cc5b0",
    phases.OPEN: "#97bbf5",
    phases.COMPARE: "#a463f2",
    phases.WRITE: "#efb118",
    phases.FLUSH: "#ff725c",
    phases.MERGE: "#3ca951",
    phases.WAIT: "#d9d9d9",
    phases.GATHER: "#bdbdbd",
}
_OTHER = "#9c6b4e"
# Labels for this many workers fit in a picture; of more workers, only some are named.
_MOST_LABELS = 32


def draw(saves: Sequence[Save], path: str) -> None:
    """Draws saves into a file, whose name gives its format. It appears when it is complete.

    Args:
      saves: At least one.
      path: Ends with one of `FORMS`.

    Raises:
      ConfigurationError: The name has another ending.
      UnsupportedOptionError: matplotlib is missing.
      OSError: The file cannot be written.
    """
    form = path.rpartition(".")[2].lower()
    if form not in FORMS:
        raise ConfigurationError(f"{path}: the name must end with .html, .png or .svg.")
    content = _picture(saves, "svg" if form == "html" else form)
    if form == "html":
        content = _page(saves, content)
    LocalStorage().write(path, content, durable=True)


def _picture(saves: Sequence[Save], form: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnsupportedOptionError(
            "The package matplotlib is missing: pip install 'distckpt[timeline]'. "
            "--json does not need it."
        ) from None
    rows = [min(len(save.workers), _MOST_LABELS) for save in saves]
    heights = [0.9 + 0.28 * count for count in rows]
    figure = Figure(figsize=(10, sum(heights) + 0.9), layout="constrained")
    axes = figure.subplots(len(saves), 1, squeeze=False, height_ratios=heights)[:, 0]
    for save, axis in zip(saves, axes, strict=True):
        _draw_save(save, axis)
    axes[-1].set_xlabel("seconds since the first worker began (each worker by its own clock)")
    _legend(saves, figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150)
    return buffer.getvalue()


def _draw_save(save: Save, axis: Any) -> None:
    bar = 0.8
    for number, worker in enumerate(save.workers):
        for phase in worker:
            begin, colour = phase.began - save.began, _COLOURS.get(phase.name, _OTHER)
            axis.broken_barh([(begin, phase.seconds)], (number - bar / 2, bar), color=colour)
    if save.straggler is not None:
        axis.axhspan(save.straggler - 0.5, save.straggler + 0.5, color="#ff725c", alpha=0.12)
    every = -(-len(save.workers) // _MOST_LABELS)
    ticks = list(range(0, len(save.workers), every))
    axis.set_yticks(ticks, [f"worker {tick}" for tick in ticks])
    axis.set_ylim(len(save.workers) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_title(save.headline, loc="left", fontsize=10, wrap=True)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(saves: Sequence[Save], figure: Any) -> None:
    from matplotlib.patches import Patch

    there = {phase.name for save in saves for worker in save.workers for phase in worker}
    names = [name for name in phases.ALL if name in there]
    patches = [Patch(color=_COLOURS[name], label=name) for name in names]
    if there - set(names):
        patches.append(Patch(color=_OTHER, label="other"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)


def _page(saves: Sequence[Save], svg: bytes) -> bytes:
    title = html.escape(f"Saves {saves[0].name} to {saves[-1].name}")
    picture = svg.decode()
    picture = picture[picture.index("<svg") :]
    lines = "".join(f"<li>{html.escape(save.headline)}</li>" for save in saves)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font-family:sans-serif;margin:2em}svg{max-width:100%;height:auto}</style>"
        f"<h1>{title}</h1><ul>{lines}</ul>{picture}</html>\n"
    ).encode()
