"""Compares a program's state with a checkpoint before the restore.

TensorFlow matches objects by their names, from the root down. It silently leaves objects without a
counterpart unchanged: a renamed model would train from the beginning.

An object that the program makes later is matched then. So a program without state yet, or with an
unbuilt layer, does not count as a mismatch.

Private TensorFlow API used here: ``Checkpoint._saver``, ``ObjectGraphView``,
``Trackable._lookup_dependency``, and the attributes that show that an object has state;
tests/unit/state/test_program_match.py would notice a change.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.saved_model import registration
from tensorflow.python.trackable.base import VARIABLE_VALUE_KEY, Trackable
from tensorflow.python.trackable.trackable_utils import escape_local_name
from tensorflow.python.training.saving.saveable_object_util import (
    trackable_has_serialize_to_tensor,
)

from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY
from distckpt.errors import RestoreError
from distckpt.state.search.object_tensors import has_saveables
from distckpt.state.search.tensor_search import saving
from distckpt.state.search.variable_kinds import PlainVariables

_log = logging.getLogger("distckpt")

_COUNTER = "save_counter"
_SUFFIX = "/.ATTRIBUTES/"
# The most names in a message.
_SHOWN = 5


class Value(NamedTuple):
    """A tensor that is the whole state of an object in a checkpoint, e.g. of a variable.

    Attributes:
      node: The number of the object in the checkpoint's graph.
      thing: The program's object.
      key: The checkpoint key.
      dtype: The tensor's type.
      shape: The tensor's dimensions.
    """

    node: int
    thing: Any
    key: str
    dtype: tf.DType
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Match:
    """How a checkpoint matches a program's state, without the save counter.

    Attributes:
      count: How many objects of the program have state: variables, tables, iterators.
      missing: The names of those that the checkpoint lacks.
      unused: The names of values that only the checkpoint has.
      waiting: Whether some object in both has state in the checkpoint, and none yet in the program:
        an unbuilt layer.
      values: The values of matched objects that have exactly one, in the order of their nodes.
      others: All other matched objects that have state in the checkpoint.
    """

    count: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    waiting: bool
    values: tuple[Value, ...]
    others: tuple[Any, ...]

    @property
    def nothing(self) -> bool:
        """Whether it seems to be another program's checkpoint, as far as known now."""
        return 0 < self.count == len(self.missing) and not self.waiting


def check(checkpoint: Any, path: str, require: str) -> Match | None:
    """Logs which of the program's values the checkpoint at `path` lacks, and its surplus values.

    Args:
      checkpoint: The `tf.train.Checkpoint` to restore.
      path: The prefix of the files.
      require: As ``ManagerOptions.require_match``.

    Returns:
      See `match`.

    Raises:
      RestoreError: The checkpoint has less than `require` requires.
    """
    found = match(checkpoint, path)
    if found is None:
        return None
    if found.nothing:
        text = (
            f"{path} has a value for none of the {found.count} variables of the program. It "
            "belongs to another model, or objects are now tracked under other names. "
        )
    else:
        text = (
            f"{path} has no value for {len(found.missing)} of the {found.count} variables of the "
            "program. "
        )
    names = f"Without a value: {_some(found.missing)}. Not in the program: {_some(found.unused)}."
    if (found.nothing and require == "some") or (found.missing and require == "all"):
        raise RestoreError(
            f"{text}{names} Nothing was restored from it. Track the objects under the names in "
            "the checkpoint, or use another directory; or allow it by "
            "ManagerOptions.require_match."
        )
    if found.missing:
        _log.warning("%sThese keep their values. %s", text, names)
    elif found.unused:
        _log.info(
            "%s has values that the program lacks, but may use later: %s.",
            path,
            _some(found.unused),
        )
    return found


def match(checkpoint: Any, path: str) -> Match | None:
    """Returns the comparison; None for a checkpoint of TensorFlow 1, without an object graph.

    Args:
      checkpoint: The `tf.train.Checkpoint` to restore.
      path: The prefix of the files.
    """
    # Not load_checkpoint(): it mistakes a checkpoint on ram:// for a directory.
    reader = tf.compat.v1.train.NewCheckpointReader(path)
    if not reader.has_tensor(OBJECT_GRAPH_KEY):
        return None
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(OBJECT_GRAPH_KEY))
    view = checkpoint._saver._graph_view
    with saving():
        program = _Program(view)
        bound = _bind(view, graph.nodes)
    valued = _valued(graph.nodes)
    matched = {id(bound[node]) for node in valued if node in bound}
    counted = [thing for thing in program.stateful if program.names[thing] != _COUNTER]
    missing = [program.names[thing] for thing in counted if thing not in matched]
    unused = {node: name for node, name in valued.items() if node not in bound}
    values = {value.node: value for value in _values(bound, graph.nodes, reader)}
    return Match(
        count=len(counted),
        missing=tuple(missing),
        unused=tuple(name for name in unused.values() if name != _COUNTER),
        waiting=_waits(program, bound, graph.nodes, unused),
        values=tuple(values.values()),
        others=tuple(bound[n] for n in valued if n in bound and n not in values),
    )


def _values(bound: dict[int, Any], nodes: Sequence[Any], reader: Any) -> Iterator[Value]:
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    for number in sorted(bound):
        attributes = nodes[number].attributes
        if len(attributes) != 1 or attributes[0].name != VARIABLE_VALUE_KEY:
            continue
        key = attributes[0].checkpoint_key
        if key in types:
            yield Value(number, bound[number], key, types[key], tuple(shapes[key]))


class _Program:
    """The objects that a program tracks, identified by their `id`.

    Args:
      view: The checkpoint's graph view.

    Attributes:
      names: The shortest path to each object.
      stateful: The objects with their own state.
      above: The objects that have state, or track an object that has.
    """

    def __init__(self, view: Any) -> None:
        self.names: dict[int, str] = {id(view.root): ""}
        self.stateful: list[int] = []
        parents: dict[int, list[int]] = defaultdict(list)
        queue, variables = deque([view.root]), PlainVariables()
        while queue:
            thing = queue.popleft()
            if variables.find(thing) is not None:
                self.stateful.append(id(thing))
                continue
            if _has_state(thing):
                self.stateful.append(id(thing))
            for name, child in _children(view, thing):
                parents[id(child)].append(id(thing))
                if id(child) not in self.names:
                    path = (self.names[id(thing)], escape_local_name(name))
                    self.names[id(child)] = "/".join(filter(None, path))
                    queue.append(child)
        counted = [thing for thing in self.stateful if self.names[thing] != _COUNTER]
        self.above = _ancestors(counted, parents)


def _children(view: Any, thing: Any) -> list[tuple[str, Any]]:
    children = list(thing._trackable_children().items())
    if thing is view.root:
        attached = view.attached_dependencies or []
        children += [(reference.name, reference.ref) for reference in attached]
    return [(name, child) for name, child in children if isinstance(child, Trackable)]


def _has_state(thing: Any) -> bool:
    # First variables: querying an attribute of a variable may need all workers.
    return (
        isinstance(thing, (tf.Variable, tf.distribute.DistributedValues))
        or trackable_has_serialize_to_tensor(thing)
        or has_saveables(thing)
        or registration.get_registered_saver_name(thing) is not None
    )


def _bind(view: Any, nodes: Sequence[Any]) -> dict[int, Any]:
    """Returns the object for each node of a checkpoint's graph that has one, as TensorFlow does."""
    bound = {0: view.root}
    _bind_below(0, bound, nodes)
    by_name = {child.local_name: child.node_id for child in nodes[0].children}
    for reference in view.attached_dependencies or []:
        node = by_name.get(reference.name)
        if node is not None and node not in bound and reference.name != "root":
            bound[node] = reference.ref
            _bind_below(node, bound, nodes)
    return bound


def _bind_below(top: int, bound: dict[int, Any], nodes: Sequence[Any]) -> None:
    queue = deque([top])
    while queue:
        node = queue.popleft()
        if not nodes[node].children:
            continue
        thing = bound[node]
        children = thing._trackable_children()
        for child in nodes[node].children:
            if child.node_id in bound:
                continue
            found = thing._lookup_dependency(child.local_name, children)
            if found is not None:
                bound[child.node_id] = found
                queue.append(child.node_id)


def _valued(nodes: Sequence[Any]) -> dict[int, str]:
    """Returns the names of the nodes that have values, without slots of old optimizers."""
    slots = {slot.slot_variable_node_id for node in nodes for slot in node.slot_variables}
    found = {}
    for number, node in enumerate(nodes):
        if number in slots:
            continue
        if node.attributes:
            found[number] = node.attributes[0].checkpoint_key.split(_SUFFIX)[0]
        elif node.registered_saver.name:
            found[number] = node.registered_saver.object_name
    return found


def _waits(
    program: _Program, bound: dict[int, Any], nodes: Sequence[Any], unused: Iterable[int]
) -> bool:
    parents: dict[int, list[int]] = defaultdict(list)
    for number, node in enumerate(nodes):
        for child in node.children:
            parents[child.node_id].append(number)
    above = _ancestors(unused, parents) - {0}
    return any(id(bound[node]) not in program.above for node in above if node in bound)


def _ancestors(of: Iterable[int], parents: dict[int, list[int]]) -> set[int]:
    """Returns `of` and all their ancestors."""
    found: set[int] = set()
    queue = deque(of)
    while queue:
        one = queue.popleft()
        if one not in found:
            found.add(one)
            queue.extend(parents.get(one, ()))
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    more = len(names) - _SHOWN
    return shown if more <= 0 else f"{shown} and {more} more"
