"""Detects whether the objects that a checkpoint tracks have changed.

Finding all tensors and naming them anew takes long for many variables. Comparing the graph of
objects with the last one takes a tenth of that.

Private TensorFlow API used here: that of `object_walk`; tests/unit/state/test_graph.py would notice
a change.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from distckpt.state.search.object_walk import ObjectWalk, list_children
from distckpt.state.search.variable_kinds import DEPENDENCIES, has_own_children_only


class GraphSnapshot:
    """The object graph of a checkpoint at one moment.

    It holds weak references to objects where possible.

    Args:
      walk: The objects.

    Attributes:
      comparable: False if changes cannot be detected: some object makes its children anew for each
        query, or has state apart from its children.
    """

    def __init__(self, walk: ObjectWalk) -> None:
        self._view = walk.view
        self.comparable = walk.comparable
        self._find = [reference(thing) for thing in walk.objects]
        # A leaf has no children while its list of dependencies is empty.
        self._leaves: list[int] = []
        self._children: list[tuple[int, tuple[tuple[str, int], ...]]] = []
        for position, (thing, plain, children) in enumerate(
            zip(walk.objects, walk.plain, walk.children, strict=True)
        ):
            if plain is not None or (not children and _is_leaf(thing)):
                self._leaves.append(position)
            else:
                self._children.append((position, children))

    def unchanged(self) -> bool:
        """Returns whether the graph still consists of the same objects under the same names."""
        objects = [find() for find in self._find]
        if not self.comparable or objects[0] is not self._view.root:
            return False
        try:
            # `vars` of None, an object that was deleted, is an error.
            if [p for p in self._leaves if vars(objects[p]).get(DEPENDENCIES)]:
                return False
            return all(self._same(objects[p], known, objects) for p, known in self._children)
        except Exception:  # an object cannot list its children: TensorFlow will report it
            return False

    def _same(self, thing: Any, known: tuple[tuple[str, int], ...], objects: list[Any]) -> bool:
        if thing is None:
            return False
        found = list_children(self._view, thing)
        return len(found) == len(known) and all(
            child is objects[position] and name == known_name
            for (name, child), (known_name, position) in zip(found, known, strict=True)
        )


def reference(thing: Any) -> Callable[[], Any]:
    """Returns a function that returns `thing`, or None once it was deleted."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _is_leaf(thing: Any) -> bool:
    return has_own_children_only(type(thing)) and hasattr(thing, "__dict__")
