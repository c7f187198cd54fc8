"""Restores a `tf.train.Checkpoint` without TensorFlow's Python for each of its variables.

TensorFlow restores a variable by an object, a function and three ops of its own: ten thousand take
two seconds. Here TensorFlow still decides what is restored: it walks through the objects, defers
what does not exist yet, and restores everything except most of the variables. It skips these
because their ``_update_uid`` is set to that of a later restore. Their values are then read in
batches, and assigned.

If a class that is not TensorFlow's restores objects in its own way, TensorFlow restores everything:
such an object may read or write variables, so the order counts. The same goes for a subclass of
`tf.train.Checkpoint` that overrides ``restore`` or ``read``: it may use the variables there.

Private TensorFlow API used here: ``Trackable._update_uid``, ``ops.uid``,
``CheckpointLoadStatus._checkpoint`` with its ``restore_uid`` and ``object_by_proto_id``, the op
``AssignVariableOp``, and that of `variable_kinds`; tests/unit/state/test_variable_restore.py would
notice a change.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import ops
from tensorflow.python.saved_model import registration

from distckpt.state.loading.checkpoint_reads import Wanted, read_tensors
from distckpt.state.loading.program_match import Match, Value
from distckpt.state.search.variable_kinds import KNOWN, RESTORING, assignable_variables

# How far the variables' numbers are ahead of TensorFlow's count while it restores everything else.
# If an interrupt left such a number behind, soon a restore would have a larger one.
_AHEAD = 1000


class _Target(NamedTuple):
    """An object that is restored here.

    Attributes:
      value: Which value of the checkpoint it has.
      variables: The resource variables that get the value.
      wanted: The value's tensor.
    """

    value: Value
    variables: list[Any]
    wanted: Wanted


def restore(
    checkpoint: Any,
    path: str,
    found: Match | None,
    *,
    verified: bool,
    count: Callable[[int], None] = lambda size: None,
) -> None:
    """Restores `checkpoint` as ``checkpoint.restore(path)`` does.

    Args:
      checkpoint: The `tf.train.Checkpoint`.
      path: The prefix of the files.
      found: How the checkpoint matches the program; None if that is unknown.
      verified: Whether the files were just found intact. Otherwise all values are read before the
        first is assigned, which takes twice as much memory.
      count: Called with the size of each value in bytes after it was read, unless TensorFlow
        restores it.

    Raises:
      CheckpointDamagedError: The bytes of a value differ from those that were saved.
      Exception: See ``checkpoint.restore``.
    """
    targets: list[_Target] = []
    if found is not None and tf.executing_eagerly() and _restores_as_tensorflow(checkpoint):
        targets = _targets(found)
    if not targets:
        checkpoint.restore(path)
        return
    tensors = _read(path, targets, count)
    if not verified:
        tensors = iter(list(tensors))
    before = [target.value.thing._update_uid for target in targets]
    later = ops.uid() + _AHEAD
    number = None  # of this restore, once it has restored everything
    try:
        for target in targets:
            target.value.thing._update_uid = later
        others = _restore_others(checkpoint, path, targets)
        if others is not None:
            _assign_all(targets, tensors)
            number = others
    finally:
        for target, old in zip(targets, before, strict=True):
            target.value.thing._update_uid = old if number is None else number
    if number is None:  # TensorFlow has matched the objects in another way
        checkpoint.restore(path)


def _read(
    path: str, targets: Sequence[_Target], count: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    for position, tensor in read_tensors(path, [target.wanted for target in targets]):
        count(targets[position].wanted.size)
        yield position, tensor


def _restore_others(checkpoint: Any, path: str, targets: Sequence[_Target]) -> int | None:
    """Lets TensorFlow restore all but `targets`.

    Returns:
      The number of this restore, or None if TensorFlow has not matched `targets` as expected.
    """
    found = getattr(checkpoint.restore(path), "_checkpoint", None)
    if found is None:
        return None
    matched = found.object_by_proto_id
    alike = all(matched.get(t.value.node) is t.value.thing for t in targets)
    return int(found.restore_uid) if alike else None


def _restores_as_tensorflow(checkpoint: Any) -> bool:
    """Returns whether ``checkpoint.restore`` is TensorFlow's, so that it does nothing else."""
    return all(
        getattr(checkpoint, name, None) == getattr(tf.train.Checkpoint, name).__get__(checkpoint)
        for name in ("read", "restore")
    )


def _targets(found: Match) -> list[_Target]:
    """Returns the values that are restored here, and their variables."""
    assignable = [_variables(value.thing) for value in found.values]
    # Objects may share a variable, which TensorFlow then restores once for each.
    uses = Counter(id(variable) for variables in assignable for variable in variables or ())
    targets, others = [], list(found.others)
    elsewhere = set(map(id, others))
    for value, variables in zip(found.values, assignable, strict=True):
        if (
            variables
            and id(value.thing) not in elsewhere
            and all(uses[id(each)] == 1 and _fits(each, value) for each in variables)
        ):
            wanted = Wanted(value.key, variables[0].dtype, value.shape)
            targets.append(_Target(value, variables, wanted))
        else:
            others.append(value.thing)
    return targets if all(map(_is_tensorflows, others)) else []


def _is_tensorflows(thing: Any) -> bool:
    """Returns whether restoring `thing` changes nothing else, as with TensorFlow's own classes."""
    methods = [getattr(thing, name, None) for name in RESTORING]
    return (
        # Not a function from a SavedModel: its class is TensorFlow's, but not what it does.
        all(inspect.ismethod(m) and m.__module__.split(".")[0] in KNOWN for m in methods)
        and registration.get_registered_saver_name(thing) is None
    )


def _fits(variable: Any, value: Value) -> bool:
    """Returns whether a value can be assigned; otherwise TensorFlow says what is wrong."""
    shape = variable.shape
    return bool(
        shape.rank is not None
        and tuple(shape.as_list()) == value.shape
        and variable.dtype == value.dtype
    )


def _variables(thing: Any) -> list[Any] | None:
    """Returns the variables that get the value of `thing`; None if restoring it does more."""
    variables = assignable_variables(thing)
    if variables is None or registration.get_registered_saver_name(thing) is not None:
        return None
    return variables


def _assign_all(targets: Sequence[_Target], tensors: Iterable[tuple[int, Any]]) -> None:
    for position, tensor in tensors:
        for variable in targets[position].variables:
            _assign(variable.handle, tensor)


def _assign(handle: Any, tensor: Any) -> None:
    """Gives a variable a value: the tensor's own buffer, where both are on the same device."""
    if tensor.device != handle.device:
        with tf.device(handle.device):
            tensor = tf.identity(tensor)
    attributes = ("dtype", tensor.dtype.as_datatype_enum, "validate_shape", False)
    execute.execute(
        b"AssignVariableOp", 0, inputs=[handle, tensor], attrs=attributes, ctx=context.context()
    )
