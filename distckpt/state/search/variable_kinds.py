"""Which kind of variable an object is, TensorFlow's, a strategy's or Keras 3's, and what follows.

An object counts as of a known kind only if it is saved, or restored, as objects of this kind are:
neither its class nor the object itself may override the methods for that.

Private TensorFlow API used here: ``BaseResourceVariable``, ``ResourceVariable``,
``MirroredVariable``, ``_packed_variable``, ``Trackable._trackable_children``,
``_checkpoint_dependencies``, the attribute that they read, and the methods in `_METHODS`; of Keras
3, ``Variable._value``. tests/unit/state/test_variable_kinds.py and test_variable_restore.py would
notice a change.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.values import MirroredVariable
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable, ResourceVariable
from tensorflow.python.trackable.base import Trackable

DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
# Old optimizers have it. Their slot variables are not children of any object.
SLOTS = "get_slot_names"
# The packages whose classes are known here.
KNOWN = ("keras", "tensorflow", "tf_keras")
_LEGACY_NAME = "_LEGACY_SAVEABLE_NAME"
_SAVING = "_serialize_to_tensors"
# The methods that say how an object is restored.
RESTORING = ("_restore_from_tensors", "_gather_saveables_for_checkpoint")
# The methods by which TensorFlow saves or restores a variable.
_METHODS = frozenset({*RESTORING, "_checkpoint_adapter", _SAVING})
# An object that has one of these itself need not behave like others of its class.
_OVERRIDES = frozenset(
    {SLOTS, _LEGACY_NAME, _SAVING, "_gather_saveables_for_checkpoint", "_trackable_children"}
)
_KERAS = "keras.src.backend.tensorflow.core"
_KERAS_MODULES = ("keras.src.backend", _KERAS)
# The methods by which a variable of Keras 3 is saved and restored.
_KERAS_METHODS = frozenset({_SAVING, "_restore_from_tensors"})


def distributed_variable(trackable: Any, value: Any = None) -> Any:
    """Returns the distributed variable of `trackable`, or None if it was made outside one."""
    if isinstance(trackable, tf.distribute.DistributedValues):
        return trackable
    # A Keras 3 variable has the distributed variable in `value`, which is a method elsewhere.
    candidates = (getattr(trackable, "obj", None), value, getattr(trackable, "value", 0))
    for candidate in candidates:
        if isinstance(candidate, tf.distribute.DistributedValues):
            return candidate
    return None


def is_collective(distributed: Any) -> bool:
    """Returns whether all workers must read the variable together."""
    on_read = getattr(distributed, "synchronization", 0) == tf.VariableSynchronization.ON_READ
    return bool(on_read) and not is_first_replicas(distributed)


def is_first_replicas(distributed: Any) -> bool:
    """Returns whether each worker has its own value, and the chief's is saved.

    With ``aggregation=ONLY_FIRST_REPLICA`` a worker takes the value of its own first replica, at
    each read or write, without communication.
    """
    aggregation = getattr(distributed, "aggregation", 0)
    return bool(aggregation == tf.VariableAggregation.ONLY_FIRST_REPLICA)


def is_distributed_in_keras(owner: Any, value: Any) -> bool:
    """Returns whether `value` is the distributed variable that a Keras 3 variable wraps.

    Its ``_serialize_to_tensors`` returns that instead of a `SaveSpec`.
    """
    if not is_keras_variable(owner) or getattr(owner, "_value", None) is not value:
        return False
    return isinstance(value, tf.distribute.DistributedValues) and isinstance(value, tf.Variable)


def is_keras_variable(thing: Any) -> bool:
    """Returns whether `thing` is saved and restored as a variable of Keras 3."""
    return _is_keras_kind(type(thing))


def _is_keras_kind(kind: type) -> bool:
    methods = (getattr(kind, name, None) for name in _KERAS_METHODS)
    return all(getattr(method, "__module__", None) == _KERAS for method in methods)


def resource_variable(trackable: Any) -> Any:
    """Returns the one variable whose content is the value of `trackable`, or None."""
    if _is_resource_variable(trackable, {_SAVING}):
        return trackable
    distributed = distributed_variable(trackable)
    if distributed is not None:
        first = distributed.values[0]  # the primary, which TensorFlow saves
        mirrored = not is_collective(distributed)
        return first if mirrored and isinstance(first, BaseResourceVariable) else None
    if is_keras_variable(trackable):
        inner = getattr(trackable, "_value", None)
        return inner if _is_resource_variable(inner, {_SAVING}) else None
    return None


def assignable_variables(thing: Any) -> list[Any] | None:
    """Returns the resource variables that get the value of `thing` when it is restored.

    Returns None if restoring it does more than to assign the value to each of them.
    """
    inner: Any = getattr(thing, "_value", None) if _is_restored_as_in_keras(thing) else thing
    if type(inner) is MirroredVariable and inner._packed_variable is None:
        variables = list(inner.values)
    else:
        variables = [inner]
    return variables if all(_is_resource_variable(each, _METHODS) for each in variables) else None


def _is_restored_as_in_keras(thing: Any) -> bool:
    return (
        is_keras_variable(thing)
        and _inherits(thing, Trackable, _METHODS - _KERAS_METHODS)
        and _KERAS_METHODS.isdisjoint(vars(thing))
        and type(thing).assign.__module__.split(".")[0] in KNOWN
    )


def _is_resource_variable(thing: Any, methods: Set[str]) -> bool:
    """Returns whether `thing` is a resource variable, and has these methods of one."""
    kind = BaseResourceVariable
    return isinstance(thing, kind) and _inherits(thing, kind, methods)


def _inherits(thing: Any, kind: type, methods: Set[str]) -> bool:
    """Returns whether neither the class of `thing` nor `thing` itself overrides these of `kind`."""
    own = type(thing)
    inherited = all(getattr(own, name, None) is getattr(kind, name, None) for name in methods)
    return inherited and methods.isdisjoint(vars(thing))


def has_own_children_only(kind: type) -> bool:
    """Returns whether the children of such objects are exactly those in `DEPENDENCIES`."""
    own = getattr(kind, "_trackable_children", None) is Trackable._trackable_children
    inherited = getattr(kind, "_checkpoint_dependencies", None)
    return own and inherited is Trackable._checkpoint_dependencies


def has_own_dir(kind: type) -> bool:
    """Returns whether what ``dir`` lists of such objects is made by a method of theirs."""
    return any("__dir__" in vars(base) for base in kind.__mro__ if base is not object)


class PlainVariables:
    """Tells plain variables, TensorFlow's and Keras 3's, from all other objects.

    If the program has changed how a class is saved, its objects do not count.
    """

    def __init__(self) -> None:
        self._kinds: dict[type, bool] = {}

    def find(self, thing: Any) -> Any:
        """Returns the resource variable of `thing` if that is a plain variable; else None."""
        kind = type(thing)
        plain = self._kinds.get(kind)
        if plain is None:
            plain = self._kinds[kind] = _is_plain(kind)
        if not plain:
            return None
        own = vars(thing)
        if own.get(DEPENDENCIES) or not _OVERRIDES.isdisjoint(own):
            return None
        if kind is ResourceVariable:
            return thing
        inner = own.get("_value")
        is_resource = type(inner) is ResourceVariable and thing.value is inner  # not a cast of it
        return self.find(inner) if is_resource else None


def _is_plain(kind: type) -> bool:
    if kind is ResourceVariable:
        known = kind._serialize_to_tensors is BaseResourceVariable._serialize_to_tensors
    else:
        known = kind.__module__ in _KERAS_MODULES and _is_keras_kind(kind)
    return (
        known
        and has_own_children_only(kind)
        and not has_own_dir(kind)
        and not any(hasattr(kind, name) for name in (SLOTS, _LEGACY_NAME))
    )
