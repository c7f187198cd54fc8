"""Which bugs there are, and how one of them gets into the real code for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Change = tuple[Any, str, Any]  # an object, the name of its attribute, and the wrong value
BUGS: dict[str, Callable[[], list[Change]]] = {}
# Settings with which a bug shows sooner, if it takes several coincidences; see `run.play`.
FOCUS: dict[str, dict[str, Any]] = {}

# A bug that no longer fits the code raises one of these.
_MISFIT = ("TypeError", "AttributeError", "NameError", "UnboundLocalError")


def bug(**focus: Any) -> Callable[[Callable[[], list[Change]]], Callable[[], list[Change]]]:
    """Registers a function that returns the changes of a bug.

    Args:
      focus: Settings with which the bug shows sooner.
    """

    def register(make: Callable[[], list[Change]]) -> Callable[[], list[Change]]:
        BUGS[make.__name__] = make
        if focus:
            FOCUS[make.__name__] = focus
        return make

    return register


def nothing(*args: object, **kwargs: object) -> None:
    """Does nothing."""


def fits(violation: str) -> bool:
    """Returns whether a bug has broken a promise, and did not merely raise an error of its own."""
    return not violation.startswith(_MISFIT)


@contextlib.contextmanager
def with_bug(name: str | None) -> Iterator[None]:
    """Puts a bug into the code for a while; none if `name` is None."""
    changes = BUGS[name]() if name else []
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in changes]
    try:
        for owner, attribute, instead in changes:
            setattr(owner, attribute, instead)
        yield
    finally:
        for owner, attribute, old in before:
            setattr(owner, attribute, old)
