"""How a call ended, as data that a worker can send to the tests."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import distckpt


def caught(call: Any) -> dict[str, Any]:
    """Returns the path that `call` returned, or its error, and how long it took."""
    started = time.monotonic()
    try:
        path, error, text = call(), None, ""
    except distckpt.errors.DistckptError as raised:
        path, error, text = None, type(raised).__name__, str(raised)
    return {"path": path, "error": error, "text": text, "seconds": time.monotonic() - started}


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collects the warnings of distckpt."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("distckpt")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
