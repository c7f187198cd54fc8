"""Reads the values of a state.

What ``_serialize_to_tensors`` gives for a variable is a `SaveSpec` with a function that reads it,
at 70 µs each: 0.7 s for 10,000 variables. Most are plain resource variables, or have one for each
replica, and are read many at a time instead, at 4 µs each.

On CPU a read shares the variable's buffer, and TensorFlow copies it when the variable is next
written. A variable that has seen a sparse update is in "copy on read" mode, in which every read
copies; ``DisableCopyOnRead`` ends it, as TensorFlow's own saver does, until the next such update.

Private TensorFlow API used here: ``SaveSpec``, ``BaseResourceVariable``, the op
``_ReadVariablesOp``, ``EagerTensor._shape_tuple`` and ``_numpy``;
tests/unit/state/test_reading.py would notice a change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable
from tensorflow.python.training.saving.saveable_object import SaveSpec

from distckpt.core import crc32c

# How many variables one op reads. More gain nothing, and each number and type needs a kernel.
_BATCH = 64
# From this size in bytes on it is cheaper to end "copy on read" than to copy.
LARGE = 64 * 1024
# Bytes that are copied to be checked: few enough to stay in a processor's cache.
_CHUNK = 1 << 20
_KERAS = "keras.src.backend.tensorflow.core"


def read(value: Any) -> Any:
    """Returns the eager tensor of a value, or None for an uninitialised variable.

    Args:
      value: What ``_serialize_to_tensors`` gave: a `SaveSpec`, a tensor, or a variable.
    """
    if isinstance(value, SaveSpec):
        with tf.device(value.device):
            value = value.tensor
    if value is None or (tf.is_tensor(value) and not isinstance(value, tf.Variable)):
        return value
    return tf.convert_to_tensor(value)


def read_variables(variables: Sequence[Any], *, to_host: bool = True) -> list[Any]:
    """Returns the values of resource variables. One that is not initialised has the shape (0,).

    Args:
      variables: The variables, of any types and on any devices.
      to_host: Whether values on accelerators are copied to the host's memory.
    """
    groups: dict[tuple[str, Any], list[int]] = defaultdict(list)
    handles = [variable.handle for variable in variables]
    for position, handle in enumerate(handles):
        groups[(handle.device, variables[position].dtype)].append(position)
    tensors: list[Any] = [None] * len(variables)
    for (device, dtype), positions in groups.items():
        copy = to_host and not is_host(device)
        for start in range(0, len(positions), _BATCH):
            batch = positions[start : start + _BATCH]
            values = _read_batch([handles[p] for p in batch], dtype)
            for position, value in zip(batch, values, strict=True):
                tensors[position] = on_host(value) if copy else value
    return tensors


def _read_batch(handles: list[Any], dtype: Any) -> list[Any]:
    count = len(handles)
    types = [dtype.as_datatype_enum] * count
    attributes = ("N", count, "dtypes", types)
    read: list[Any] = execute.execute(
        b"_ReadVariablesOp", count, inputs=handles, attrs=attributes, ctx=context.context()
    )
    return read


def share_on_read(variable: Any) -> None:
    """Lets the next read of `variable` share its buffer. Only between training steps."""
    tf.raw_ops.DisableCopyOnRead(resource=variable.handle)


def has_shape(tensor: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether an eager tensor has this shape; a tenth of the time of ``tensor.shape``."""
    return bool(tensor._shape_tuple() == shape)


def on_host(tensor: Any) -> Any:
    """Returns `tensor` in host memory: itself on a CPU, a copy of one on an accelerator."""
    return tensor if is_host(tensor.device) else tensor.cpu()


def checksum(tensor: Any, rows: tuple[int, int] | None) -> int:
    """Returns what an index of a bundle would have for a tensor, or for some of its rows.

    That is the masked CRC32C of its bytes. They are read in place, a piece at a time.

    Args:
      tensor: An eager tensor in host memory, of a type of fixed size.
      rows: (start, stop) along the first axis, or None for all.
    """
    array = np.asarray(tensor._numpy())
    part = array if rows is None else array[rows[0] : rows[1]]
    flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    crc = 0
    for start in range(0, flat.size, _CHUNK):
        crc = crc32c.extend(crc, flat[start : start + _CHUNK].tobytes())
    return crc32c.mask(crc)


def is_host(device: str) -> bool:
    """Returns whether the memory of `device` is the host's."""
    return "CPU" in device


def distributed_variable(trackable: Any, value: Any = None) -> Any:
    """Returns the variable behind `trackable` if it was made under a strategy, else None."""
    if isinstance(trackable, tf.distribute.DistributedValues):
        return trackable
    # A Keras 3 variable holds the distributed variable in `value`, a method of others.
    candidates = (getattr(trackable, "obj", None), value, getattr(trackable, "value", 0))
    for candidate in candidates:
        if isinstance(candidate, tf.distribute.DistributedValues):
            return candidate
    return None


def is_collective(distributed: Any) -> bool:
    """Returns whether all workers must read the variable together."""
    return bool(getattr(distributed, "synchronization", 0) == tf.VariableSynchronization.ON_READ)


def resource_variable(trackable: Any) -> Any:
    """Returns the one variable whose content is the value of `trackable`, or None."""
    if _is_own(trackable):
        return trackable
    distributed = distributed_variable(trackable)
    if distributed is not None:
        first = distributed.values[0]  # the primary, which TensorFlow saves
        mirrored = not is_collective(distributed)
        return first if mirrored and isinstance(first, BaseResourceVariable) else None
    method = getattr(type(trackable), "_serialize_to_tensors", None)
    if getattr(method, "__module__", None) == _KERAS:
        inner = getattr(trackable, "_value", None)
        return inner if _is_own(inner) else None
    return None


def _is_own(thing: Any) -> bool:
    """Returns whether `thing` is a resource variable, saved as these are."""
    if not isinstance(thing, BaseResourceVariable) or "_serialize_to_tensors" in vars(thing):
        return False
    return bool(type(thing)._serialize_to_tensors is BaseResourceVariable._serialize_to_tensors)
