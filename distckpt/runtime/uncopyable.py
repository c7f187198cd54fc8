"""Refuses to copy or pickle an object that belongs to the process that made it."""

from __future__ import annotations

from typing import NoReturn


def refuse(it: object) -> NoReturn:
    """Raises the error of an object whose copy would share its threads, files or variables.

    Called from ``__reduce_ex__``, which copy.copy, copy.deepcopy and pickle all use.

    Raises:
      TypeError: As for Python's own objects that cannot be pickled.
    """
    raise TypeError(
        f"A {type(it).__name__} cannot be copied or pickled, because it belongs to the process "
        "that made it. Make another one where you need it, with the same arguments."
    )
