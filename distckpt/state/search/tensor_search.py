"""Finds the tensors to save, their keys, and the sources of their values.

The object graph is walked at the first save and again whenever the tracked objects have changed.
Otherwise `Survey.ask` confirms that they have not, in a fraction of the time.

Private TensorFlow API used here: ``Checkpoint._saver``, ``SaveableCompatibilityConverter`` and
``save_context``; of Keras 3, ``Variable._value``. The tests in tests/unit/state would notice a
change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.saved_model import save_context
from tensorflow.python.trackable.trackable_utils import escape_local_name, extract_local_name
from tensorflow.python.training.saving.saveable_object import SaveSpec
from tensorflow.python.training.saving.saveable_object_util import (
    SaveableCompatibilityConverter,
    trackable_has_serialize_to_tensor,
)

from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY, Entry
from distckpt.errors import UnsupportedOptionError
from distckpt.state.search.graph import GraphSnapshot, reference
from distckpt.state.search.object_tensors import Found, Plain, Serialized, has_saveables, serialize
from distckpt.state.search.object_walk import ObjectWalk
from distckpt.state.search.variable_kinds import (
    distributed_variable,
    is_collective,
    is_distributed_in_keras,
    is_first_replicas,
    is_keras_variable,
    resource_variable,
)
from distckpt.state.variable_reads import Values, VariableReads, read

Identity = tuple[str, str]  # checkpoint key, slice spec
Tensors = list[tuple[str, str, Any]]  # key, slice spec, value

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_VARIABLE_SIZE = (tf.string, tf.variant)
# Objects that serialize themselves may give a device only as "CPU:0".
_ANY_TASK = (None, None)


@dataclasses.dataclass
class _Asked:
    """An object that is asked for its state at each save.

    Attributes:
      find: Returns the object, or None if it was deleted.
      names: The object's own names of its tensors.
      entries: The entries of these tensors at the last save.
    """

    find: Callable[[], Any]
    names: tuple[str, ...]
    entries: list[Entry]


class Answer(NamedTuple):
    """What a survey answers when it is asked for values.

    Attributes:
      values: The values that are not from variables.
      read: Values of variables that it has just read, for `VariableReads.read`.
    """

    values: dict[Identity, Any]
    read: Values


class Survey:
    """The tensors of a checkpoint. Made and used on the training thread, eagerly.

    Args:
      checkpoint: The `tf.train.Checkpoint`.
      split: As for `state.capture.Capture`.

    Attributes:
      variables: For each value of a resource variable, a function that finds the variable.
      reads: Reads these variables, in the order of `variables`.
      together: Values that all workers must read at the same time.
      savers: Registered savers: {name: {object name: trackable}}.
      several_tasks: Whether the state is on several tasks; then the rest is empty.
    """

    def __init__(self, checkpoint: Any, split: str) -> None:
        self._split = split
        self._fixed: list[Entry] = []
        self.variables: dict[Identity, Callable[[], Any]] = {}
        self.together: dict[Identity, Any] = {}
        self.reads = VariableReads([], [])
        self._asked: list[_Asked] = []
        self._fresh: Answer | None = Answer({}, {})
        self._reusable = True
        with saving():
            walk = ObjectWalk(checkpoint._saver._graph_view)
            serialized = serialize(walk)
            self._graph = GraphSnapshot(walk)
        self.savers = serialized.savers
        self.several_tasks = _on_several_tasks(serialized)
        if not self.several_tasks:
            batched = serialized.plain
            for found in serialized.found:
                variable = self._batched(found)
                if variable is None:
                    self._add(found.owner, found.by_key)
                else:
                    batched.append(variable)
            self._add_batched(batched)
            self._add_object_graph(serialized.graph)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries to write. `ask` may change them: an object's tensors may grow."""
        return (*self._fixed, *(entry for asked in self._asked for entry in asked.entries))

    def is_current(self) -> bool:
        """Returns whether the tracked objects are still the same."""
        with saving():
            return self._graph.unchanged()

    def counters(self) -> dict[str, Callable[[], Any]]:
        """Returns functions that find the integer scalars equal on all workers, by their names.

        ``save_counter`` is excluded: it counts attempts, not steps.
        """
        return {
            entry.key.removesuffix(_VALUE): self.variables[(entry.key, entry.spec)]
            for entry in self._fixed
            if (entry.key, entry.spec) in self.variables
            and tf.as_dtype(entry.dtype).is_integer
            and not (entry.shape or entry.chief_only or entry.key.startswith("save_counter/"))
        }

    def forget_values(self) -> None:
        """Makes `ask` read the values again: the state may have changed since the survey."""
        self._fresh = None

    def ask(self) -> Answer | None:
        """Returns the values that are not from variables; None if this survey is out of date."""
        if self._fresh is not None:  # the survey was just made
            answer, self._fresh = self._fresh, None
            return answer
        if self.savers or not self._reusable:
            return None
        with saving():
            values = self._ask_again() if self._graph.unchanged() else None
        return None if values is None else Answer(values, {})

    def _ask_again(self) -> dict[Identity, Any] | None:
        values = {(OBJECT_GRAPH_KEY, ""): self._object_graph}
        for asked in self._asked:
            owner = asked.find()
            given = {} if owner is None else owner._serialize_to_tensors()
            flat = _flatten(given)
            if tuple(map(escape_local_name, given)) != asked.names:
                return None
            if len(flat) != len(asked.entries):
                return None
            entries = []
            for known, (_, spec, value) in zip(asked.entries, flat, strict=True):
                tensor = read(value)
                if tensor is None or spec != known.spec:
                    return None
                entries.append(self._value_entry(owner, known.key, spec, tensor))
                values[(known.key, spec)] = tensor
            asked.entries = entries
        return values

    def _batched(self, found: Found) -> Plain | None:
        """Returns the variable that is an object's only tensor, if it can be read with others."""
        flat = _flatten(found.by_key)
        if len(flat) != 1:
            return None
        owner = _unconverted(found.owner)
        key, spec, value = flat[0]
        if not _can_wait(owner, value):
            return None
        distributed = distributed_variable(owner, value)
        variable = None if is_collective(distributed) else resource_variable(owner)
        if variable is None:
            return None
        if not variable.shape.is_fully_defined():
            self._reusable = False
            return None
        shape = tuple(variable.shape.as_list())
        return Plain(found.owner, variable, shape, key, spec, distributed, found.by_key)

    def _add_batched(self, batched: Sequence[Plain]) -> None:
        """Adds variables, which are read together."""
        self.reads = VariableReads(list(map(_finder, batched)), [one.shape for one in batched])
        missing, found = self.reads.look()
        if missing:
            for position in sorted(missing):
                one = batched[position]
                self._add(one.owner, one.by_key or {one.key: _only_value(one.owner)})
            rest = [position for position in range(len(batched)) if position not in missing]
            self.reads, batched = self.reads.part(rest), [batched[position] for position in rest]
        else:
            self._fresh.read.update(found)  # type: ignore[union-attr]
        for one, find in zip(batched, self.reads.find, strict=True):
            dtype = one.variable.dtype
            self._fixed.append(self._entry(one.key, one.spec, dtype, one.shape, one.distributed))
            self.variables[(one.key, one.spec)] = find

    def _add(self, trackable: Any, by_key: dict[str, Any]) -> None:
        """Adds the tensors of an object, to be asked for at each save."""
        owner, flat = _unconverted(trackable), _flatten(by_key)
        if len(flat) == 1 and self._add_collective(owner, *flat[0]):
            return
        entries = []
        for key, spec, value in flat:
            tensor = read(value)
            if tensor is None:  # an uninitialised variable, which may be initialised next time
                self._reusable = False
                continue
            entries.append(self._value_entry(owner, key, spec, tensor))
            self._fresh.values[(key, spec)] = tensor  # type: ignore[union-attr]
        converted = owner is not trackable
        names = _own_names(owner) if converted else tuple(map(extract_local_name, by_key))
        if not converted or len(names) == len(by_key) == 1:  # an iterator has both interfaces
            self._asked.append(_Asked(reference(owner), names, entries))
            return
        self._fixed += entries
        if flat or has_saveables(owner):
            self._reusable = False  # conversion may have read its tensors

    def _add_collective(self, owner: Any, key: str, spec: str, value: Any) -> bool:
        """Adds a tensor that all workers must read together; returns whether it is one."""
        distributed = distributed_variable(owner, value)
        if not (_can_wait(owner, value) and is_collective(distributed)):
            return False
        self._fixed.append(self._value_entry(owner, key, spec, distributed, collective=True))
        self.together[(key, spec)] = value
        return True

    def _add_object_graph(self, proto: bytes) -> None:
        with tf.device("CPU:0"):
            self._object_graph = tf.constant(proto, tf.string)
        self._fixed.append(Entry(OBJECT_GRAPH_KEY, "string", (), 0, chief_only=True))
        fresh = self._fresh.values  # type: ignore[union-attr]
        fresh[(OBJECT_GRAPH_KEY, "")] = self._object_graph

    def _value_entry(
        self, owner: Any, key: str, spec: str, value: Any, *, collective: bool = False
    ) -> Entry:
        """Returns the entry of `value`, a tensor or variable."""
        distributed = distributed_variable(owner, value)
        return self._entry(
            key,
            spec,
            value.dtype,
            tuple(value.shape.as_list()),
            distributed,
            is_variable=isinstance(distributed or owner, tf.Variable),
            collective=collective,
        )

    def _entry(
        self,
        key: str,
        spec: str,
        dtype: Any,
        shape: tuple[int, ...],
        distributed: Any,
        *,
        is_variable: bool = True,
        collective: bool = False,
    ) -> Entry:
        name, nbytes, sizeless = _layout(dtype, shape)
        if name == "resource":  # ``SaveV2`` would abort the process
            raise UnsupportedOptionError(
                f"{key!r} is a handle (dtype resource), which has no value to save. Track the "
                "object behind it instead."
            )
        chief_only = self._split != "all" if distributed is None else is_first_replicas(distributed)
        # A value that is not a variable's, e.g. a table, may have another size on another worker.
        nbytes = nbytes if is_variable or not chief_only else 0
        return Entry(key, name, shape, nbytes, chief_only or sizeless, spec, collective)


@functools.lru_cache(maxsize=4096)
def _layout(dtype: Any, shape: tuple[int, ...]) -> tuple[str, int, bool]:
    """Returns a type's name, the bytes that a tensor is taken to have, and whether these vary."""
    sizeless = dtype in _VARIABLE_SIZE
    size = 16 if sizeless else dtype.size
    return dtype.name, math.prod(shape) * size, sizeless


def _unconverted(trackable: Any) -> Any:
    """Returns the object that TensorFlow's converter stands for."""
    return trackable.obj if isinstance(trackable, SaveableCompatibilityConverter) else trackable


def _can_wait(owner: Any, value: Any) -> bool:
    """Returns whether a value that an object gives for saving can be read later."""
    return isinstance(value, SaveSpec) or is_distributed_in_keras(owner, value)


def _only_value(owner: Any) -> Any:
    (value,) = owner._serialize_to_tensors().values()
    return value


def _finder(one: Plain) -> Callable[[], Any]:
    """Returns a function that returns the resource variable, quickly, at later saves."""
    if one.variable is one.owner:
        return reference(one.owner)
    owner = _unconverted(one.owner)
    find = reference(owner)
    if one.distributed is owner:
        return lambda: find().values[0]
    if is_keras_variable(owner):
        inner = owner._value
        if inner is one.variable:
            return lambda: find()._value
        if inner is one.distributed:
            return lambda: find()._value.values[0]
    return lambda: resource_variable(find())


def saving() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which an ON_READ variable answers for its first replica.

    Without it, even looking for an attribute (``saveable_compat.get_saveable_name``) would be a
    collective.
    """
    context: contextlib.AbstractContextManager[Any] = save_context.save_context(
        tf.saved_model.SaveOptions()
    )
    return context


def _flatten(by_key: dict[str, Any]) -> Tensors:
    """Returns (key, slice spec, value) of all tensors of one object."""
    flat = []
    for key, value in by_key.items():
        slices = value if isinstance(value, dict) else {"": value}
        flat += [(key, spec.strip(), part) for spec, part in slices.items()]
    return flat


def _on_several_tasks(serialized: Serialized) -> bool:
    """Returns whether the values are on several tasks, without reading them."""
    devices = {one.variable.handle.device for one in serialized.plain}
    for found in serialized.found:
        devices.update(value.device for _, _, value in _flatten(found.by_key))
    return len(set(map(_task, devices)) - {_ANY_TASK}) > 1


def _task(device: Any) -> tuple[str | None, int | None]:
    parsed = tf.DeviceSpec.from_string(device) if isinstance(device, str) else device
    return (parsed.job, parsed.task)


def _own_names(owner: Any) -> tuple[str, ...]:
    """Returns the tensor names of the newer of an object's two saving interfaces."""
    if not trackable_has_serialize_to_tensor(owner):
        return ()
    return tuple(map(escape_local_name, owner._serialize_to_tensors()))
