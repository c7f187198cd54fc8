"""Reads the values of a state.

For a variable, ``_serialize_to_tensors`` returns a `SaveSpec` with a function that reads it, at
70 µs each: 0.7 s for 10,000 variables. Most are plain resource variables, or have one for each
replica, and are read in batches instead, at 4 µs each.

On CPU a read shares the variable's buffer, and TensorFlow copies the buffer when the variable is
next written. A sparse update puts a variable into "copy on read" mode, in which every read copies;
``DisableCopyOnRead`` ends the mode until the next such update, as in TensorFlow's own saver.

This holds for variables only. Values of other objects may be in memory that is written in place: a
table that hands out its buckets, a NumPy array. They must be copied (`copy_of`).

Private TensorFlow API used here: ``SaveSpec``, the op ``_ReadVariablesOp``,
``EagerTensor._shape_tuple`` and ``_numpy``; tests/unit/state/test_variable_reads.py would notice a
change.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.training.saving.saveable_object import SaveSpec

from distckpt.core.tensorflow_format import crc32c

# How many variables one op reads. More are not faster, and each number and type needs a kernel.
_BATCH = 64
# From this size in bytes on, ending "copy on read" is cheaper than copying.
LARGE = 64 * 1024
Values = dict[int, list[Any]]  # of the batches with these numbers
# Bytes that are copied for a checksum: few enough to stay in a processor's cache.
_CHUNK = 1 << 20


def read(value: Any) -> Any:
    """Returns the eager tensor of a value, or None for an uninitialised variable.

    Args:
      value: From ``_serialize_to_tensors``: a `SaveSpec`, a tensor, or a variable.
    """
    if isinstance(value, SaveSpec):
        with tf.device(value.device):
            value = value.tensor
    if value is None or (tf.is_tensor(value) and not isinstance(value, tf.Variable)):
        return value
    return tf.convert_to_tensor(value)


def read_variables(variables: Sequence[Any]) -> list[Any]:
    """Returns the values of resource variables, where they are; shape (0,) for one without a value.

    Args:
      variables: The variables, of any types and on any devices.
    """
    tensors: list[Any] = [None] * len(variables)
    for batch in _batches(variables):
        values = batch.read([variables[p] for p in batch.positions])
        for position, value in zip(batch.positions, values, strict=True):
            tensors[position] = value
    return tensors


class VariableReads:
    """Reads the same resource variables at each save; what can be prepared is prepared once.

    Args:
      find: For each variable, a function that finds it.
      shapes: The shapes that their values must have.

    Attributes:
      find: As given.
      order: The positions of the variables in the order in which `read` returns the values.
    """

    def __init__(
        self, find: Sequence[Callable[[], Any]], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self.find, self._shapes = find, shapes
        variables = [each() for each in find]
        self._batches = [
            (batch, [find[p] for p in batch.positions], [shapes[p] for p in batch.positions])
            for batch in _batches(variables, shapes)
        ]
        self.order = [position for batch, *_ in self._batches for position in batch.positions]

    def part(self, positions: Sequence[int]) -> VariableReads:
        """Returns the reads of the variables at `positions` alone."""
        if len(positions) == len(self.find):
            return self
        shapes = [self._shapes[position] for position in positions]
        return VariableReads([self.find[position] for position in positions], shapes)

    def look(self) -> tuple[set[int], Values]:
        """Returns the positions of variables that have no such value yet, and the values it read.

        Small variables are read in batches, which is faster than asking each whether it has a
        value. Other ones are not: `read` first makes large ones share their buffers.
        """
        missing: set[int] = set()
        read: Values = {}
        for number, (batch, found, shapes) in enumerate(self._batches):
            variables = [find() for find in found]
            if batch.size is _Size.SMALL:
                with contextlib.suppress(tf.errors.OpError):  # a variable was destroyed
                    read[number] = batch.read(variables)
            if number not in read:
                pairs = zip(batch.positions, variables, strict=True)
                missing.update(position for position, each in pairs if not each.is_initialized())
            elif (got := [value._shape_tuple() for value in read[number]]) != shapes:
                triples = zip(batch.positions, got, shapes, strict=True)
                missing.update(position for position, one, other in triples if one != other)
        return missing, read

    def read(self, known: Values | None = None) -> list[Any] | None:
        """Returns the values, in host memory; None if one has not the shape that it must have.

        Args:
          known: The values that `look` has just read, and found to have these shapes.
        """
        values: list[Any] = []
        for number, (batch, found, shapes) in enumerate(self._batches):
            if known and number in known:
                values += batch.to_host(known[number])
                continue
            variables = [find() for find in found]
            if batch.size is _Size.LARGE:
                for variable in variables:
                    share_on_read(variable)
            read = batch.read(variables)
            if [value._shape_tuple() for value in read] != shapes:
                return None
            values += batch.to_host(read)
        return values


class _Size(enum.Enum):
    """How large a variable is.

    Ending "copy on read" is cheaper than copying a large one. An empty one must be asked whether it
    has a value: the value of an uninitialised variable, too, is empty.
    """

    EMPTY = enum.auto()
    SMALL = enum.auto()
    LARGE = enum.auto()


class _Batch(NamedTuple):
    """Variables of one type on one device, which one op reads."""

    positions: list[int]
    attributes: tuple[Any, ...]
    on_host: bool
    size: _Size

    def read(self, variables: Sequence[Any]) -> list[Any]:
        """Returns the values of these variables, where they are."""
        values: list[Any] = execute.execute(
            b"_ReadVariablesOp",
            len(variables),
            inputs=[variable.handle for variable in variables],
            attrs=self.attributes,
            ctx=context.context(),
        )
        return values

    def to_host(self, values: list[Any]) -> list[Any]:
        """Returns values of these variables in host memory."""
        return values if self.on_host else list(map(on_host, values))


def _batches(
    variables: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None = None
) -> list[_Batch]:
    """Divides variables into batches; by their sizes, too, if their shapes are given."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for position, variable in enumerate(variables):
        shape = shapes[position] if shapes else None
        groups[(variable.handle.device, variable.dtype, shape)].append(position)
    merged: dict[tuple[str, Any, _Size], list[int]] = defaultdict(list)
    for (device, dtype, shape), positions in groups.items():
        merged[(device, dtype, _size(dtype, shape))] += positions
    batches = []
    for (device, dtype, size), positions in merged.items():
        for start in range(0, len(positions), _BATCH):
            batch = positions[start : start + _BATCH]
            types = [dtype.as_datatype_enum] * len(batch)
            attributes = ("N", len(batch), "dtypes", types)
            batches.append(_Batch(batch, attributes, is_host(device), size))
    return batches


def _size(dtype: Any, shape: tuple[int, ...] | None) -> _Size:
    size = 1 if shape is None else math.prod(shape) * dtype.size
    return _Size.EMPTY if size == 0 else _Size.LARGE if size >= LARGE else _Size.SMALL


def share_on_read(variable: Any) -> None:
    """Makes the next read of `variable` share its buffer. Only between training steps."""
    tf.raw_ops.DisableCopyOnRead(resource=variable.handle)


def has_shape(tensor: Any, shape: tuple[int, ...]) -> bool:
    """Returns whether an eager tensor has this shape; ten times as fast as ``tensor.shape``."""
    return bool(tensor._shape_tuple() == shape)


def on_host(tensor: Any) -> Any:
    """Returns `tensor` in host memory: itself on a CPU, a copy if it is on an accelerator."""
    return tensor if is_host(tensor.device) else tensor.cpu()


def copy_of(tensor: Any, rows: tuple[int, int] | None = None) -> Any:
    """Returns a copy of an eager tensor, or of some of its rows, in separate host memory.

    Variants, e.g. the state of an iterator, are not copied: copying would encode them, and their
    parts are never written in place.

    Args:
      tensor: The tensor, of any type and on any device.
      rows: (start, stop) along the first axis, or None for all. For types of fixed size.
    """
    part = tensor if rows is None else tensor[rows[0] : rows[1]]
    if not is_host(part.backing_device):  # an int32 "on" an accelerator may be in host memory
        return part.cpu()
    if rows is not None and not np.may_share_memory(part._numpy(), tensor._numpy()):
        return part  # slicing has copied: not all rows are aligned
    return part if part.dtype == tf.variant else _deep_copy(part)


def _deep_copy(tensor: Any) -> Any:
    """Copies a tensor in host memory. ``tf.identity`` would share the memory."""
    try:
        with tf.device("CPU:0"):
            return tf.raw_ops.DeepCopy(x=tensor)
    except tf.errors.InvalidArgumentError:  # it lacks some types: float8, int4
        with tf.device("CPU:0"):
            return tf.constant(tensor._numpy(), tensor.dtype)  # copies arrays


def checksum(tensor: Any, rows: tuple[int, int] | None) -> int:
    """Returns the checksum of a tensor, or of some of its rows, as in a bundle's index.

    It is the masked CRC32C of its bytes, which are read in place, a piece at a time.

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
