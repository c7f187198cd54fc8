"""Finds the tensors of all objects of a checkpoint, and describes the graph of these objects.

The result is that of TensorFlow's ``serialize_graph_view``. Most objects of a large state are
variables of one kind or have no state of their own; for these the result is known. All others are
left to TensorFlow, and so is the whole graph if something in it is irregular.

Private TensorFlow API used here: ``save_util.serialize_graph_view``, ``_TrackableData``,
``_get_and_write_tensors_to_serialize``, the registry of savers, ``util.get_full_name``,
``trackable_has_serialize_to_tensor``, ``PythonState``, and that of `object_walk`;
tests/unit/state/test_object_tensors.py would notice a change.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec
from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.checkpoint import save_util, saveable_compat, util
from tensorflow.python.saved_model.registration import registration
from tensorflow.python.trackable.base import VARIABLE_VALUE_KEY, Trackable
from tensorflow.python.trackable.python_state import PythonState
from tensorflow.python.training.saving.saveable_object_util import (
    trackable_has_serialize_to_tensor,
)
from tensorflow.python.util.object_identity import ObjectIdentityDictionary

from distckpt.core.tensorflow_format.object_graph import encode_attribute, encode_node
from distckpt.state.search.object_walk import ObjectWalk

_Graph = trackable_object_graph_pb2.TrackableObjectGraph
_VALUE_SUFFIX = f"/.ATTRIBUTES/{VARIABLE_VALUE_KEY}"


class Found(NamedTuple):
    """An object with tensors.

    Attributes:
      owner: The object; TensorFlow's converter for one that saves itself the old way.
      by_key: Its tensors, by checkpoint key.
    """

    owner: Any
    by_key: dict[str, Any]


class Plain(msgspec.Struct):
    """An object whose only tensor is a resource variable that is read together with others.

    There may be many, so it is not a dataclass.

    Attributes:
      owner: The object, or TensorFlow's converter.
      variable: The resource variable whose value is saved.
      shape: Its dimensions.
      key: The checkpoint key.
      spec: The slice spec.
      distributed: The distributed variable that has it; None if there is none.
      by_key: As in `Found`; None if the object was not asked for its tensors.
    """

    owner: Any
    variable: Any
    shape: tuple[int, ...]
    key: str
    spec: str = ""
    distributed: Any = None
    by_key: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Serialized:
    """What is to be saved.

    Attributes:
      plain: The plain variables, see `object_walk.PlainVariables`.
      found: The other objects with tensors.
      savers: Registered savers: {name: {object name: trackable}}.
      graph: The description of the objects, as it is saved with them.
    """

    plain: list[Plain]
    found: list[Found]
    savers: dict[str, dict[str, Any]]
    graph: bytes


def serialize(walk: ObjectWalk) -> Serialized:
    """Returns what is to be saved. In the context `survey.saving`."""
    if not is_regular(walk):
        tensors, _, savers, graph = save_util.serialize_graph_view(walk.view, None)
        asked = [Found(owner, by_key) for owner, by_key in tensors.items()]
        return Serialized([], asked, savers, graph.SerializeToString())
    plain: dict[int, Plain] = {}
    attributes: dict[int, bytes] = {}
    others: list[int] = []
    for position, variable in enumerate(walk.plain):
        shape = None if variable is None else _known_shape(variable)
        if shape is not None:
            owner, key = walk.objects[position], walk.paths[position] + _VALUE_SUFFIX
            plain[position] = Plain(owner, variable, shape, key)
            full_name = util.get_full_name(owner)
            attributes[position] = encode_attribute(VARIABLE_VALUE_KEY, full_name, key)
        elif not _is_stateless(walk.objects[position]):
            others.append(position)
    # TensorFlow asks objects of Python last.
    others.sort(key=lambda position: isinstance(walk.objects[position], PythonState))
    found = _ask_tensorflow(walk, others, attributes)
    return Serialized(list(plain.values()), found, {}, _graph(walk, attributes))


def is_regular(walk: ObjectWalk) -> bool:
    """Returns whether TensorFlow would do nothing with these objects that is not known here."""
    if walk.irregular or not walk.comparable:
        return False
    return not has_saver(walk.objects)


def has_saver(things: Collection[Any]) -> bool:
    """Returns whether a saver is registered for one of the objects.

    TensorFlow's ``get_registered_saver_name`` makes an error for each object that has none.
    """
    predicates = registration._saver_registry.get_registrations().values()
    return any(any(map(predicate, things)) for predicate in predicates)


def _known_shape(variable: Any) -> tuple[int, ...] | None:
    shape = variable.shape
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def _is_stateless(thing: Any) -> bool:
    """Returns whether TensorFlow would find no tensors in an object, and not ask it for them."""
    return not (
        isinstance(thing, PythonState)
        or has_saveables(thing)
        or trackable_has_serialize_to_tensor(thing)
        or saveable_compat.get_saveable_name(thing)
    )


def has_saveables(thing: Any) -> bool:
    """Returns whether an object that gave no tensors could give some next time."""
    method = getattr(thing, "_gather_saveables_for_checkpoint", None)
    plain = getattr(method, "__func__", None) is Trackable._gather_saveables_for_checkpoint
    return not plain or bool(getattr(thing, "_self_saveable_object_factories", None))


def _ask_tensorflow(
    walk: ObjectWalk, positions: list[int], attributes: dict[int, bytes]
) -> list[Found]:
    """Lets TensorFlow find the tensors of the objects at `positions`, and encode their attributes.

    TensorFlow numbers these objects as if there were no others.
    """
    data, ids, graph = [], ObjectIdentityDictionary(), _Graph()
    for number, position in enumerate(positions):
        thing = walk.objects[position]
        ids[thing] = number
        graph.nodes.add()
        data.append(
            save_util._TrackableData(
                trackable=thing,
                node_id=number,
                object_name=walk.paths[position],
                children_proto=[],
                slot_variable_proto=[],
                object_to_save=thing,
            )
        )
    tensors = save_util._get_and_write_tensors_to_serialize(data, ids, None, None, graph)
    for position, node in zip(positions, graph.nodes, strict=True):
        if node.attributes:
            attributes[position] = node.SerializeToString()  # it has nothing else
    return [Found(owner, by_key) for owner, by_key in tensors.items()]


def _graph(walk: ObjectWalk, attributes: dict[int, bytes]) -> bytes:
    """Returns the encoded graph: the objects, their children, and their `attributes`."""
    valued = _with_values(walk, attributes)
    return b"".join(
        encode_node(children, attributes.get(position, b""), position in valued)
        for position, children in enumerate(walk.children)
    )


def _with_values(walk: ObjectWalk, own: Iterable[int]) -> set[int]:
    """Returns the positions of the objects that have tensors, or descendants with tensors.

    Args:
      walk: The objects.
      own: The positions of those that have tensors.
    """
    found, todo = set(own), list(own)
    parents: dict[int, list[int]] = defaultdict(list)
    for position, children in enumerate(walk.children):
        for _, child in children:
            if child not in found:
                parents[child].append(position)
            elif position not in found:
                found.add(position)
                todo.append(position)
    for position in todo:  # the list grows meanwhile
        fresh = [parent for parent in parents.get(position, ()) if parent not in found]
        found.update(fresh)
        todo += fresh
    return found
