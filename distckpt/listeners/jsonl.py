"""`JsonLines`: events as lines of JSON in a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from distckpt.errors import ConfigurationError
from distckpt.runtime import portable

if TYPE_CHECKING:
    from distckpt.events import Event


class JsonLines:
    """Appends each event to a file, as one line of JSON. The file is opened for each event.

    So the file may be moved away at any time. Only its last line may be incomplete.

    Args:
      path: The file; its folder is created if it does not exist. ``{worker}`` in the path stands
        for the worker's index: each worker should have its own file.

    Raises:
      ConfigurationError: `path` has other braces.
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
      ConfigurationError: `path` has other braces.
    """
    text = os.fspath(path)
    rest = text.replace("{worker}", "")
    if "{" in rest or "}" in rest:
        raise ConfigurationError(f"{text!r} has other braces than {{worker}}.")
    return portable.absolute(text)
