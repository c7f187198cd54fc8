"""Finds the tensors of all objects of a checkpoint, and describes the graph of these objects.

The result is that of TensorFlow's ``serialize_graph_view``. Most objects of a large state are
variables of one kind or have no state of their own; for these the result is known. All others are
left to TensorFlow, and so is the whole graph if something in it is irregular.

Private TensorFlow API used here: ``save_util.serialize_graph_view``, ``_TrackableData``,
``_get_and_write_tensors_to_serialize``, ``registration.get_registered_saver_name``,
``util.get_full_name``, ``trackable_has_serialize_to_tensor``, ``PythonState``, and that of
`object_walk`; tests/unit/state/test_serializing.py would notice a change.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.checkpoint import save_util, saveable_compat, util
from tensorflow.python.saved_model import registration
from tensorflow.python.trackable.base import VARIABLE_VALUE_KEY, Trackable
from tensorflow.python.trackable.python_state import PythonState
from tensorflow.python.training.saving.saveable_object_util import (
    trackable_has_serialize_to_tensor,
)
from tensorflow.python.util.object_identity import ObjectIdentityDictionary

from distckpt.state.object_walk import ObjectWalk

_Graph = trackable_object_graph_pb2.TrackableObjectGraph
_VALUE_SUFFIX = f"/.ATTRIBUTES/{VARIABLE_VALUE_KEY}"


class Found(NamedTuple):
    """An object with tensors.

    Attributes:
      owner: The object; TensorFlow's converter for one that saves itself the old way.
      by_key: Its tensors, by checkpoint key.
      key: The checkpoint key of a plain variable, which has no `by_key`; else "".
      variable: The resource variable of a plain variable; else None.
    """

    owner: Any
    by_key: dict[str, Any]
    key: str = ""
    variable: Any = None


@dataclasses.dataclass(frozen=True)
class Serialized:
    """What is to be saved.

    Attributes:
      found: The objects with tensors.
      savers: Registered savers: {name: {object name: trackable}}.
      graph: The description of the objects, as it is saved with them.
    """

    found: list[Found]
    savers: dict[str, dict[str, Any]]
    graph: bytes


def serialize(walk: ObjectWalk) -> Serialized:
    """Returns what is to be saved. In the context `survey.saving`."""
    if not is_regular(walk):
        tensors, _, savers, graph = save_util.serialize_graph_view(walk.view, None)
        asked = [Found(owner, by_key) for owner, by_key in tensors.items()]
        return Serialized(asked, savers, graph.SerializeToString())
    graph = _Graph()
    found: list[Found] = []
    others: list[int] = []
    for position, children in enumerate(walk.children):
        node = graph.nodes.add()
        for name, child in children:
            node.children.add(node_id=child, local_name=name)
        variable = walk.plain[position]
        if variable is not None and variable.shape.is_fully_defined():
            found.append(_add_variable(walk, position, node))
        elif not _is_stateless(walk.objects[position]):
            others.append(position)
    # TensorFlow asks objects of Python last.
    others.sort(key=lambda position: isinstance(walk.objects[position], PythonState))
    found += _ask_tensorflow(walk, others, graph)
    with_values = _with_values(walk, graph)
    for position, node in enumerate(graph.nodes):
        node.has_checkpoint_values.value = position in with_values
    return Serialized(found, {}, graph.SerializeToString())


def is_regular(walk: ObjectWalk) -> bool:
    """Returns whether TensorFlow would do nothing with these objects that is not known here."""
    if walk.irregular or not walk.comparable:
        return False
    return not any(map(registration.get_registered_saver_name, walk.objects))


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


def _add_variable(walk: ObjectWalk, position: int, node: Any) -> Found:
    owner = walk.objects[position]
    key = walk.paths[position] + _VALUE_SUFFIX
    node.attributes.add(
        name=VARIABLE_VALUE_KEY, full_name=util.get_full_name(owner), checkpoint_key=key
    )
    return Found(owner, {}, key, walk.plain[position])


def _ask_tensorflow(walk: ObjectWalk, positions: list[int], graph: Any) -> list[Found]:
    """Lets TensorFlow find the tensors of the objects at `positions`, and describe them."""
    data, ids = [], ObjectIdentityDictionary()
    for position in positions:
        thing = walk.objects[position]
        ids[thing] = position
        data.append(
            save_util._TrackableData(
                trackable=thing,
                node_id=position,
                object_name=walk.paths[position],
                children_proto=[],
                slot_variable_proto=[],
                object_to_save=thing,
            )
        )
    tensors = save_util._get_and_write_tensors_to_serialize(data, ids, None, None, graph)
    return [Found(owner, by_key) for owner, by_key in tensors.items()]


def _with_values(walk: ObjectWalk, graph: Any) -> set[int]:
    """Returns the positions of the objects that have tensors, or descendants with tensors."""
    parents: dict[int, list[int]] = {}
    for position, children in enumerate(walk.children):
        for _, child in children:
            parents.setdefault(child, []).append(position)
    found = {position for position, node in enumerate(graph.nodes) if node.attributes}
    todo = list(found)
    for position in todo:  # the list grows meanwhile
        fresh = [parent for parent in parents.get(position, ()) if parent not in found]
        found.update(fresh)
        todo += fresh
    return found
