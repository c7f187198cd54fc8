"""Lets an object with a memory read everything only once, for a single look at a directory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

_F = TypeVar("_F", bound=Callable[..., Any])


class Remembering(Protocol):
    """An object whose methods are called only once with the same arguments, if it has a memory."""

    memory: dict[object, Any] | None


def read_once(method: _F) -> _F:
    """Remembers what a method of a `Remembering` object returns, but no exception."""

    @functools.wraps(method)
    def remembering(self: Remembering, *arguments: Any) -> Any:
        if self.memory is None:
            return method(self, *arguments)
        key = (method.__name__, *arguments)
        if key not in self.memory:
            self.memory[key] = method(self, *arguments)
        return self.memory[key]

    return cast(_F, remembering)
