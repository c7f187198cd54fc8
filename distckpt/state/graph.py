"""Detects whether the objects that a checkpoint tracks have changed.

TensorFlow walks the whole object graph and names every tensor anew at each save: a second for
10,000 variables. Comparing the graph with the last one takes a fiftieth of that.

Private TensorFlow API used here: ``ObjectGraphView`` (root, attached_dependencies),
``Trackable._trackable_children``, ``_checkpoint_dependencies`` and the attribute they read.
tests/unit/state/test_graph.py would notice a change.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.trackable.base import Trackable

_DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
# Old optimizers have it. Their slot variables are not children of any object.
_SLOTS = "get_slot_names"

Children = list[tuple[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """One object.

    Attributes:
      find: Returns the object, or None if it was deleted.
      children: (name, position of the node) of each child, in order.
      leaf: Whether it has no children while `_DEPENDENCIES` is empty.
    """

    find: Callable[[], Any]
    children: tuple[tuple[str, int], ...]
    leaf: bool


class GraphSnapshot:
    """The object graph of a checkpoint at one moment.

    It holds weak references to objects where possible.

    Args:
      view: The checkpoint's graph view.

    Attributes:
      comparable: False if changes cannot be detected: some object makes its children anew for each
        query, or has state apart from its children.
    """

    def __init__(self, view: ObjectGraphView) -> None:
        self._view = view
        self.comparable = True
        objects, positions = [view.root], {id(view.root): 0}
        children: list[list[tuple[str, int]]] = []
        for thing in objects:  # the list grows meanwhile: breadth first
            self.comparable &= not hasattr(type(thing), _SLOTS)
            numbered = []
            for name, child in self._children(thing):
                self.comparable &= isinstance(child, Trackable)
                if id(child) not in positions:
                    positions[id(child)] = len(objects)
                    objects.append(child)
                numbered.append((name, positions[id(child)]))
            children.append(numbered)
        self._nodes = [
            _Node(reference(thing), tuple(numbered), not numbered and _is_plain(thing))
            for thing, numbered in zip(objects, children, strict=True)
        ]

    def unchanged(self) -> bool:
        """Returns whether the graph still consists of the same objects under the same names."""
        objects = [node.find() for node in self._nodes]
        if not self.comparable or objects[0] is not self._view.root:
            return False
        try:
            return all(map(self._same, objects, self._nodes, [objects] * len(objects)))
        except Exception:  # an object cannot list its children: TensorFlow will report it
            return False

    def _same(self, thing: Any, node: _Node, objects: list[Any]) -> bool:
        if thing is None:
            return False
        if node.leaf:
            return not vars(thing).get(_DEPENDENCIES)
        found = self._children(thing)
        if len(found) != len(node.children):
            return False
        for (name, child), (known, position) in zip(found, node.children, strict=True):
            if child is not objects[position] or name != known:
                return False
        return True

    def _children(self, thing: Any) -> Children:
        if not isinstance(thing, Trackable):
            return []
        children = list(thing._trackable_children().items())
        if thing is self._view.root:
            attached = self._view.attached_dependencies or []
            children += [(reference.name, reference.ref) for reference in attached]
        return children


def reference(thing: Any) -> Callable[[], Any]:
    """Returns a function that returns `thing`, or None once it was deleted."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _is_plain(thing: Any) -> bool:
    """Returns whether the children of `thing` are exactly those in `_DEPENDENCIES`."""
    kind = type(thing)
    own = getattr(kind, "_trackable_children", None) is Trackable._trackable_children
    inherited = getattr(kind, "_checkpoint_dependencies", None)
    return own and inherited is Trackable._checkpoint_dependencies and hasattr(thing, "__dict__")
