"""Takes hold of the values of a `tf.train.Checkpoint`, on the training thread.

On CPU nothing is copied: an eager read shares the variable's buffer, and TensorFlow copies it when
the variable is next written (copy on read, ``resource_variable_ops.cc``). Variables with
``synchronization=ON_READ`` need a collective to be read, so all workers read all of them, in the
same order.

What TensorFlow's saver must do itself is left to it (`DelegatedState`): graph-mode sessions, state
that lives in other tasks (parameter servers), and a sharding callback of the user's.

Private TensorFlow API used here: ``save_util.serialize_graph_view``, ``Checkpoint._saver``,
``registration.get_save_function``, ``save_context``.
tests/unit/state/test_capture.py would notice a change.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.checkpoint import save_util
from tensorflow.python.saved_model import registration, save_context

from distckpt.core.layout import join
from distckpt.core.plan import OBJECT_GRAPH_KEY, Entry, Piece
from distckpt.errors import UnsupportedOptionError
from distckpt.state.base import CapturedState
from distckpt.state.reading import distributed_variable, is_collective, read
from distckpt.state.shards import os_errors, write_bundle

_VARIABLE_SIZE = (tf.string, tf.variant)
# Objects that serialize themselves may name no more of a device than "CPU:0".
_ANY_TASK = (None, None)


def capture(
    checkpoint: tf.train.Checkpoint,
    *,
    workers: int,
    split: str,
    options: tf.train.CheckpointOptions | None = None,
) -> CapturedState:
    """Returns the state of `checkpoint` at this moment. Every worker, on its training thread.

    Args:
      checkpoint: What to save.
      workers: The number of workers that share the writing.
      split: "distributed": only variables made under a `tf.distribute` strategy are known to be
        equal on all workers, the chief writes the rest. "all": everything is equal everywhere.
      options: As given to ``save()``.

    Raises:
      UnsupportedOptionError: `options` or graph mode need what several workers cannot do.
    """
    if not tf.executing_eagerly():
        return _delegate(checkpoint, options, workers, "saving in graph mode")
    if options is not None and options.experimental_sharding_callback is not None:
        return _delegate(checkpoint, options, workers, "experimental_sharding_callback")
    # Within a save context an ON_READ variable answers for its first replica. Without it, the mere
    # look for an attribute (``saveable_compat.get_saveable_name``) would be a collective.
    with save_context.save_context(tf.saved_model.SaveOptions()):
        tensors, _, savers, graph = save_util.serialize_graph_view(
            checkpoint._saver._graph_view, None
        )
    found = list(_flatten(tensors))
    if len({_task(value) for _, _, _, value in found} - {_ANY_TASK}) > 1:
        return _delegate(checkpoint, options, workers, "state on several tasks")
    state = TensorState(split, savers, options)
    for trackable, key, spec, value in found:
        state.add(trackable, key, spec, value)
    state.add_object_graph(graph.SerializeToString())
    return state


def _flatten(tensors: Any) -> Iterator[tuple[Any, str, str, Any]]:
    """Yields (trackable, key, slice spec, value) in the order of the object graph."""
    for trackable, by_key in tensors.items():
        for key, value in by_key.items():
            slices = value if isinstance(value, dict) else {"": value}
            for spec, part in slices.items():
                yield trackable, key, spec.strip(), part


def _task(value: Any) -> tuple[str | None, int | None]:
    """Returns the job and the task that `value` lives in, without reading it."""
    device = value.device
    parsed = tf.DeviceSpec.from_string(device) if isinstance(device, str) else device
    return (parsed.job, parsed.task)


def _delegate(checkpoint: Any, options: Any, workers: int, what: str) -> CapturedState:
    if workers > 1:
        raise UnsupportedOptionError(
            f"{what} cannot be shared between {workers} workers. Save eagerly, without a sharding "
            "callback, variables that live on the worker that reads them."
        )
    return DelegatedState(checkpoint, options)


class TensorState(CapturedState):
    """Values held as eager tensors.

    Args:
      split: As for `capture`.
      savers: Registered savers: {name: {object name: trackable}}. The chief runs them.
      options: As given to ``save()``; ``experimental_io_device`` is honoured.
    """

    def __init__(self, split: str, savers: Any, options: Any) -> None:
        self._split = split
        self._savers = savers
        self._device = (options and options.experimental_io_device) or "CPU:0"
        self._values: dict[tuple[str, str], Any] = {}
        self._unread: dict[tuple[str, str], Any] = {}
        self._wanted: set[tuple[str, str]] | None = None
        self._entries: list[Entry] = []

    @property
    def entries(self) -> tuple[Entry, ...]:  # type: ignore[override]
        """See the base class."""
        return tuple(self._entries)

    def add(self, trackable: Any, key: str, spec: str, value: Any) -> None:
        """Reads `value` and holds it. An uninitialised variable has none and is left out.

        What needs a collective is read later, by `read_together`.
        """
        distributed = distributed_variable(trackable, value)
        chief_only = self._split != "all" and distributed is None
        if is_collective(distributed):
            self._enter(key, spec, distributed, chief_only, collective=True)
            self._unread[(key, spec)] = value
            return
        tensor = read(value, trackable, distributed)
        if tensor is not None:
            # What is no variable, e.g. a table, may have grown to another size on another worker.
            sized = not chief_only or isinstance(trackable, tf.Variable)
            self._enter(key, spec, tensor, chief_only, sized=sized)
            self._values[(key, spec)] = tensor

    def read_together(self) -> None:
        """See the base class."""
        for identity, value in self._unread.items():
            tensor = read(value)
            if self._wanted is None or identity in self._wanted:
                self._values[identity] = tensor
        self._unread = {}

    def add_object_graph(self, proto: bytes) -> None:
        """Holds the object graph, which the chief writes."""
        with tf.device("CPU:0"):
            tensor = tf.constant(proto, tf.string)
        self._enter(OBJECT_GRAPH_KEY, "", tensor, chief_only=True, sized=False)
        self._values[(OBJECT_GRAPH_KEY, "")] = tensor

    def _enter(
        self,
        key: str,
        spec: str,
        value: Any,
        chief_only: bool,
        *,
        sized: bool = True,
        collective: bool = False,
    ) -> None:
        """Adds the entry of `value`, a tensor or variable. Not `sized`: may differ in size."""
        dtype, elements = value.dtype, value.shape.num_elements() if sized else 0
        if dtype == tf.resource:  # ``SaveV2`` would abort the process
            raise UnsupportedOptionError(
                f"{key!r} is a handle (dtype resource), which has no value to save. Track the "
                "object it stands for instead."
            )
        sizeless = dtype in _VARIABLE_SIZE
        entry = Entry(
            key=key,
            dtype=dtype.name,
            shape=tuple(value.shape.as_list()),
            nbytes=elements * (16 if sizeless else dtype.size),
            chief_only=chief_only or sizeless,
            spec=spec,
            collective=collective,
        )
        self._entries.append(entry)

    def keep(self, pieces: Sequence[Piece]) -> None:
        """See the base class."""
        self._wanted = wanted = {(p.entry.key, p.entry.spec) for p in pieces}
        self._values = {k: v for k, v in self._values.items() if k in wanted}

    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """See the base class."""
        prefixes: list[str] = []
        if any(p.entry.key == OBJECT_GRAPH_KEY for p in pieces):
            prefixes += self._run_savers(folder, stem)
        if pieces:
            tensors = [self._slice(p) for p in pieces]
            keys, specs = [p.entry.key for p in pieces], [p.spec for p in pieces]
            write_bundle(join(folder, stem), keys, specs, tensors, self._device)
            prefixes.append(stem)
        return tuple(prefixes)

    def _slice(self, piece: Piece) -> Any:
        tensor = self._values[(piece.entry.key, piece.entry.spec)]
        if piece.rows is None:
            return tensor
        return tensor[piece.rows[0] : piece.rows[1]]

    def _run_savers(self, folder: str, stem: str) -> list[str]:
        """Lets the registered savers write, before the rest, as TensorFlow does."""
        written: list[str] = []
        for name, trackables in self._savers.items():
            function = registration.get_save_function(name)
            with os_errors(folder), tf.device("CPU:0"):
                prefix = tf.constant(join(folder, f"{stem}-{name}"))
                result = function(trackables=trackables, file_prefix=prefix)
            for part in tf.nest.flatten(result) if result is not None else []:
                written.append(_within(folder, f"{stem}-{name}", len(written), part))
        return written


def _within(folder: str, prefix: str, number: int, returned: Any) -> str:
    """Returns the name within `folder` of a bundle that a registered saver says it has written."""
    if not tf.is_tensor(returned) or returned.dtype != tf.string:
        raise ValueError(f"A registered saver must return string tensors, or none: {returned!r}.")
    path: str = returned.numpy().decode()
    if not path.startswith(join(folder, prefix)):
        raise UnsupportedOptionError(
            f"A registered saver wrote to {path!r}. It must write files whose names begin with the "
            f"prefix it was given, {join(folder, prefix)!r}."
        )
    name = path[len(join(folder, "")) :]
    if "/" not in name:
        return name
    with os_errors(path), tf.device("CPU:0"):  # in a folder of its own; bring it up, by renames
        flat = f"{prefix}-{number}"
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[path],
            destination_prefix=join(folder, flat),
            delete_old_dirs=True,
        )
    return flat


class DelegatedState(CapturedState):
    """State that TensorFlow's own saver reads and writes, at the time of `write`.

    Args:
      checkpoint: What to save.
      options: As given to ``save()``.
    """

    def __init__(self, checkpoint: Any, options: Any) -> None:
        self._checkpoint = checkpoint
        self._options = None
        if options is not None:
            self._options = copy.copy(options)
            self._options.experimental_write_callbacks = None  # the manager calls them

    def keep(self, pieces: Sequence[Piece]) -> None:
        """Holds nothing, so there is nothing to let go of."""

    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """See the base class."""
        path = join(folder, stem)
        with os_errors(path):
            self._checkpoint.write(path, options=self._options)
        return (stem,)
