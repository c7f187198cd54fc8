"""Walks the objects that a checkpoint tracks, as TensorFlow does, but each of them only once.

TensorFlow lists the children of every object three times, and calls ``dir`` on it. For a variable,
which nearly always has no children, `ObjectWalk` asks for nothing.

Private TensorFlow API used here: ``ObjectGraphView`` (root, attached_dependencies),
``Trackable._maybe_initialize_trackable``, ``_trackable_children``, and that of `variable_kinds`.
The tests in tests/unit/state/test_graph.py and test_object_tensors.py would notice a change.
"""

from __future__ import annotations

from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.trackable.base import SaveType, Trackable
from tensorflow.python.trackable.trackable_utils import escape_local_name

from distckpt.state.search.variable_kinds import SLOTS, PlainVariables, has_own_dir


class ObjectWalk:
    """The objects of a checkpoint and their names, in TensorFlow's order: breadth first.

    Args:
      view: The checkpoint's graph view.

    Attributes:
      objects: The objects.
      children: For each object, the (name, position) of each child, in order.
      paths: For each object, its path from the root, as it begins its checkpoint keys.
      view: As given.
      plain: For each object, what `PlainVariables.find` returns; None for the root.
      comparable: False if some object has state apart from its children, or a child that
        TensorFlow converts first.
      irregular: Whether the graph view is of another class than TensorFlow's, or two children of
        the root have the same name.
    """

    def __init__(self, view: ObjectGraphView) -> None:
        self.view = view
        variables = PlainVariables()
        self._slots: dict[type, bool] = {}
        self.comparable = True
        self.irregular = type(view) is not ObjectGraphView
        self.objects: list[Any] = [view.root]
        self.paths = [""]
        self.children: list[tuple[tuple[str, int], ...]] = []
        self._positions = {id(view.root): 0}
        self.plain: list[Any] = []
        for position, thing in enumerate(self.objects):  # the list grows meanwhile
            plain = variables.find(thing) if position else None
            self.plain.append(plain)
            self.children.append(self._visit(position, thing) if plain is None else ())

    def _visit(self, position: int, thing: Any) -> tuple[tuple[str, int], ...]:
        self.comparable &= not self._has_slots(thing)
        found = list_children(self.view, thing)
        # Two children of one name can be only those that are attached to the root.
        self.irregular |= position == 0 and len(dict(found)) < len(found)
        prefix = f"{self.paths[position]}/" if position else ""
        objects, positions = self.objects, self._positions
        numbered = []
        for name, child in found:
            known = positions.get(id(child))
            if known is None:
                self.comparable &= isinstance(child, Trackable)
                known = positions[id(child)] = len(objects)
                objects.append(child)
                self.paths.append(prefix + escape_local_name(name))
            numbered.append((name, known))
        return tuple(numbered)

    def _has_slots(self, thing: Any) -> bool:
        """Returns whether ``dir`` lists `SLOTS`, faster: ``dir`` takes long for large classes."""
        kind = type(thing)
        if has_own_dir(kind) or thing.__class__ is not kind:
            return SLOTS in dir(thing)
        if kind not in self._slots:
            self._slots[kind] = any(SLOTS in vars(base) for base in kind.__mro__)
        return self._slots[kind] or SLOTS in getattr(thing, "__dict__", ())


def list_children(view: ObjectGraphView, thing: Any) -> list[tuple[str, Any]]:
    """Returns the children of an object, with their names."""
    if not isinstance(thing, Trackable):
        return []
    thing._maybe_initialize_trackable()
    children = list(thing._trackable_children(SaveType.CHECKPOINT).items())
    if thing is view.root:
        attached = view.attached_dependencies or []
        children += [(reference.name, reference.ref) for reference in attached]
    return children
