"""Walks the objects that a checkpoint tracks, as TensorFlow does, but each of them only once.

TensorFlow lists the children of every object three times, and calls ``dir`` on it. For a variable,
which nearly always has no children, `ObjectWalk` asks for nothing.

Private TensorFlow API used here: ``ObjectGraphView`` (root, attached_dependencies),
``Trackable._maybe_initialize_trackable``, ``_trackable_children``, ``_checkpoint_dependencies`` and
the attribute they read, ``BaseResourceVariable`` and ``ResourceVariable``. The tests in
tests/unit/state/test_graph.py and test_serializing.py would notice a change.
"""

from __future__ import annotations

from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable, ResourceVariable
from tensorflow.python.trackable.base import SaveType, Trackable
from tensorflow.python.trackable.trackable_utils import escape_local_name

DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
# Old optimizers have it. Their slot variables are not children of any object.
_SLOTS = "get_slot_names"
# An object that has one of these itself need not behave like others of its class.
_OVERRIDES = frozenset(
    {
        _SLOTS,
        "_LEGACY_SAVEABLE_NAME",
        "_gather_saveables_for_checkpoint",
        "_serialize_to_tensors",
        "_trackable_children",
    }
)


class ObjectWalk:
    """The objects of a checkpoint and their names, in TensorFlow's order: breadth first.

    Args:
      view: The checkpoint's graph view.

    Attributes:
      objects: The objects.
      children: For each object, the (name, position) of each child, in order.
      paths: For each object, its path from the root, as it begins its checkpoint keys.
      view: As given.
      plain: For each object, whether it is a variable of the usual kind, without children.
      comparable: False if some object has state apart from its children, or a child that
        TensorFlow converts first.
      unusual: Whether TensorFlow does with these objects what the attributes do not tell.
    """

    def __init__(self, view: ObjectGraphView) -> None:
        self.view = view
        kinds = plain_kinds()
        self._slots: dict[type, bool] = {}
        self.comparable = True
        self.unusual = type(view) is not ObjectGraphView
        self.objects: list[Any] = [view.root]
        self.paths = [""]
        self.children: list[tuple[tuple[str, int], ...]] = []
        self._positions = {id(view.root): 0}
        self.plain: list[bool] = []
        for position, thing in enumerate(self.objects):  # the list grows meanwhile
            plain = position > 0 and is_plain(thing, kinds)
            self.plain.append(plain)
            self.children.append(() if plain else self._visit(position, thing))

    def _visit(self, position: int, thing: Any) -> tuple[tuple[str, int], ...]:
        self.comparable &= not self._has_slots(thing)
        found = list_children(self.view, thing)
        # Two children of one name can be only those that are attached to the root.
        self.unusual |= position == 0 and len(dict(found)) < len(found)
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
        """Returns whether ``dir`` lists `_SLOTS`, faster: ``dir`` takes long for large classes."""
        kind = type(thing)
        if _has_own_dir(kind) or thing.__class__ is not kind:
            return _SLOTS in dir(thing)
        if kind not in self._slots:
            self._slots[kind] = any(_SLOTS in vars(base) for base in kind.__mro__)
        return self._slots[kind] or _SLOTS in getattr(thing, "__dict__", ())


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


def has_own_children_only(kind: type) -> bool:
    """Returns whether the children of such objects are exactly those in `DEPENDENCIES`."""
    own = getattr(kind, "_trackable_children", None) is Trackable._trackable_children
    inherited = getattr(kind, "_checkpoint_dependencies", None)
    return own and inherited is Trackable._checkpoint_dependencies


def is_plain(thing: Any, kinds: frozenset[type]) -> bool:
    """Returns whether an object is a plain variable of one of `kinds`: it has no children."""
    if type(thing) not in kinds:
        return False
    own = vars(thing)
    return own.get(DEPENDENCIES) == [] and _OVERRIDES.isdisjoint(own)


def plain_kinds() -> frozenset[type]:
    """Returns the classes of plain variables: none if a program has changed how they are saved."""
    kind = ResourceVariable
    usual = (
        has_own_children_only(kind)
        and not _has_own_dir(kind)
        and kind._serialize_to_tensors is BaseResourceVariable._serialize_to_tensors
        and not any(hasattr(kind, name) for name in (_SLOTS, "_LEGACY_SAVEABLE_NAME"))
    )
    return frozenset({kind} if usual else ())


def _has_own_dir(kind: type) -> bool:
    return any("__dir__" in vars(base) for base in kind.__mro__ if base is not object)
