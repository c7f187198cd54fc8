"""`JsonLines`: events as lines of JSON in a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from distckpt import portable
from distckpt.errors import ConfigurationError

if TYPE_CHECKING:
    from distckpt.events import Event


class JsonLines:
    """Appends each event to a file, as one line of JSON. The file is opened for each.

    So a file may be moved away at any time, and what is read is whole but for the last line.

    Args:
      path: The file; its folder is made if it is not there. In it ``{worker}`` stands for the
        worker's index: each worker should have a file of its own.

    Raises:
      ConfigurationError: `path` has other braces than those.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = worker_path(path)

    def __call__(self, event: Event) -> None:
        """Appends the line."""
        path = self._path.replace("{worker}", str(event.worker))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json(), separators=(",", ":")) + "\n")


def worker_path(path: str | os.PathLike[str]) -> str:
    """Returns `path`, absolute, in which ``{worker}`` may stand for the worker's index.

    Raises:
      ConfigurationError: It has other braces than those.
    """
    text = os.fspath(path)
    rest = text.replace("{worker}", "")
    if "{" in rest or "}" in rest:
        raise ConfigurationError(f"In {text!r} only {{worker}} is replaced; it has other braces.")
    return portable.absolute(text)
