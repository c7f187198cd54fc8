"""Walks the objects that a checkpoint tracks, as TensorFlow does, but each of them only once.

TensorFlow lists the children of every object three times, and calls ``dir`` on it. For a variable,
which nearly always has no children, `ObjectWalk` asks for nothing.

Private TensorFlow API used here: ``ObjectGraphView`` (root, attached_dependencies),
``Trackable._maybe_initialize_trackable``, ``_trackable_children``, ``_checkpoint_dependencies`` and
the attribute they read, ``BaseResourceVariable`` and ``ResourceVariable``; of Keras 3,
``Variable._value``. The tests in tests/unit/state/test_graph.py and test_serializing.py would
notice a change.
"""

from __future__ import annotations

from typing import Any

from tensorflow.python.checkpoint.graph_view import ObjectGraphView
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable, ResourceVariable
from tensorflow.python.trackable.base import SaveType, Trackable
from tensorflow.python.trackable.trackable_utils import escape_local_name

from distckpt.state.variable_reads import is_keras_kind

DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
# Old optimizers have it. Their slot variables are not children of any object.
_SLOTS = "get_slot_names"
_TENSORFLOW, _KERAS = "TensorFlow", "Keras"
_KERAS_MODULES = ("keras.src.backend", "keras.src.backend.tensorflow.core")
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
      plain: For each object, what `PlainVariables.find` returns; None for the root.
      comparable: False if some object has state apart from its children, or a child that
        TensorFlow converts first.
      unusual: Whether TensorFlow does with these objects what the attributes do not tell.
    """

    def __init__(self, view: ObjectGraphView) -> None:
        self.view = view
        variables = PlainVariables()
        self._slots: dict[type, bool] = {}
        self.comparable = True
        self.unusual = type(view) is not ObjectGraphView
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


class PlainVariables:
    """Tells the variables of the usual kinds, TensorFlow's and Keras 3's, from all other objects.

    If the program has changed how a class is saved, its objects do not count.
    """

    def __init__(self) -> None:
        self._kinds: dict[type, str] = {}

    def find(self, thing: Any) -> Any:
        """Returns the resource variable of `thing` if that is a plain variable; else None."""
        kind = type(thing)
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _known_kind(kind)
        if not known:
            return None
        own = vars(thing)
        if own.get(DEPENDENCIES) or not _OVERRIDES.isdisjoint(own):
            return None
        if known == _TENSORFLOW:
            return thing
        inner = own.get("_value")
        is_resource = type(inner) is ResourceVariable and thing.value is inner  # not a cast of it
        return self.find(inner) if is_resource else None


def _known_kind(kind: type) -> str:
    known = ""
    if kind is ResourceVariable:
        usual = kind._serialize_to_tensors is BaseResourceVariable._serialize_to_tensors
        known = _TENSORFLOW if usual else ""
    elif kind.__module__ in _KERAS_MODULES and is_keras_kind(kind):
        known = _KERAS
    if not known or not has_own_children_only(kind) or _has_own_dir(kind):
        return ""
    return "" if any(hasattr(kind, name) for name in (_SLOTS, "_LEGACY_SAVEABLE_NAME")) else known


def _has_own_dir(kind: type) -> bool:
    return any("__dir__" in vars(base) for base in kind.__mro__ if base is not object)
