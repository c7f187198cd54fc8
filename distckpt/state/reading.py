"""Reads single values of a state.

What ``_serialize_to_tensors`` gives for a variable is a `SaveSpec` with a function that reads it,
at 70 µs each: 0.7 s for 10,000 variables. Most are plain resource variables, or have one for each
replica, and are read by one op instead, at 10 µs.

Private TensorFlow API used here: ``SaveSpec``, ``BaseResourceVariable``;
tests/unit/state/test_reading.py would notice a change.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable
from tensorflow.python.training.saving.saveable_object import SaveSpec


def read(value: Any, trackable: Any = None, distributed: Any = None) -> Any:
    """Returns the eager tensor of a value, or None for an uninitialised variable.

    Args:
      value: What ``_serialize_to_tensors`` gave: a `SaveSpec`, a tensor, or a variable.
      trackable: What gave it.
      distributed: The variable made under a strategy that is behind it, see `distributed_variable`.
    """
    if isinstance(value, SaveSpec):
        variable = _resource_variable(trackable, distributed)
        tensor = None if variable is None else _read_directly(variable)
        if tensor is not None:
            return tensor
        with tf.device(value.device):
            value = value.tensor
    if value is None or (tf.is_tensor(value) and not isinstance(value, tf.Variable)):
        return value
    return tf.convert_to_tensor(value)


def _read_directly(variable: Any) -> Any:
    """Returns the content of a resource variable; None if the spec's function must say."""
    try:
        tensor = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    except (tf.errors.FailedPreconditionError, tf.errors.NotFoundError):
        return None  # not initialised
    # One that is not initialised may also read as if it were empty.
    whole = tensor.shape == variable.shape and tensor.shape.num_elements() > 0
    return tensor if whole else None


def distributed_variable(trackable: Any, value: Any) -> Any:
    """Returns the variable behind `trackable` if it was made under a strategy, else None."""
    # A Keras 3 variable holds the distributed variable in `value`, a method of others.
    candidates = (trackable, getattr(trackable, "obj", None), value, getattr(trackable, "value", 0))
    for candidate in candidates:
        if isinstance(candidate, tf.distribute.DistributedValues):
            return candidate
    return None


def is_collective(distributed: Any) -> bool:
    """Returns whether all workers must read the variable together."""
    return bool(getattr(distributed, "synchronization", 0) == tf.VariableSynchronization.ON_READ)


def _resource_variable(trackable: Any, distributed: Any) -> Any:
    """Returns the one variable whose content is the value, or None if there is no such."""
    if distributed is not None:
        first = distributed.values[0]  # the primary, which TensorFlow saves
        mirrored = not is_collective(distributed)
        return first if mirrored and isinstance(first, BaseResourceVariable) else None
    if not isinstance(trackable, BaseResourceVariable):
        return None
    own = type(trackable)._serialize_to_tensors is BaseResourceVariable._serialize_to_tensors
    return trackable if own else None
