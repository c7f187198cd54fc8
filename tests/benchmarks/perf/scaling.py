"""Many simulated workers: what scale.py measures, with its table."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from perf.lab import Lab

WORKERS = [4, 64, 1024]
ENTRIES = 10000


def measure(lab: Lab) -> list[dict[str, Any]]:
    """Returns what ``scale.measure`` finds; nothing if there is no such module."""
    if importlib.util.find_spec("scale") is None:
        lab.say("scale: there is no scale.py")
        return []
    lab.say("scale …")
    quick = lab.options.quick
    found: list[dict[str, Any]] = importlib.import_module("scale").measure(
        WORKERS[:2] if quick else WORKERS, 200 if quick else ENTRIES
    )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown of what `measure` returned: scale.py's own, or all that it tells."""
    if not rows:
        return "Not measured."
    own = getattr(importlib.import_module("scale"), "table", None)
    if own is not None:
        return str(own(rows))
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    lines += ["| " + " | ".join(_text(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
