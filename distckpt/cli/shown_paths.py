"""Shows paths as the user has given them: the library knows only absolute ones."""

from __future__ import annotations

import posixpath
import re

_given: dict[str, str] = {}


def forget() -> None:
    """Forgets all paths; called at the beginning of a command."""
    _given.clear()


def remember(absolute: str, argument: str) -> None:
    """Remembers that the user has given `argument` for an absolute path."""
    given = argument.rstrip("/") or posixpath.curdir
    if absolute != given and not argument.startswith("/"):
        _given.setdefault(absolute, given)


def shown(text: str) -> str:
    """Returns a text with absolute paths replaced by what the user has given.

    The working directory itself keeps its absolute path: "." says nothing.
    """
    for absolute in sorted(_given, key=len, reverse=True):
        given = _given[absolute]
        after = "(?=/)" if given == posixpath.curdir else r"(?![\w-])"
        pattern = rf"(?<![\w./-]){re.escape(absolute)}{after}"
        text = re.sub(pattern, given.replace("\\", r"\\"), text)
    return text
