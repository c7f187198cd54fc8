"""Captures the values of a `tf.train.Checkpoint`, on the training thread.

On CPU, variables are not copied: a held tensor shares the variable's buffer, and TensorFlow copies
the buffer when the variable is next written (``resource_variable_ops.cc``). Everything else is
copied, since only a variable that is read here is known to have such a buffer. A worker holds only
its own share. If several workers divide an entry, each copies its rows, since a part of a buffer
would keep the whole buffer in memory. Variables with ``synchronization=ON_READ`` need a collective
to be read, so all workers read all of them, in the same order.

What only TensorFlow's saver can do is left to it (`delegated`): graph-mode sessions, state in other
tasks (parameter servers), and a user's sharding callback.

Private TensorFlow API used here: ``registration.get_save_function``;
tests/unit/state/test_savers.py would notice a change.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.saved_model import registration

from distckpt.core.layout import join
from distckpt.core.protocol import replica_check
from distckpt.core.protocol.replica_check import Check
from distckpt.core.protocol.write_plan import OBJECT_GRAPH_KEY, Entry, Piece, Plan, make_plan
from distckpt.core.tensorflow_format.index_writer import WrittenIndex
from distckpt.errors import UnsupportedOptionError
from distckpt.state.base import BundleWriter, CapturedState
from distckpt.state.delegated import DelegatedState
from distckpt.state.search.tensor_search import Answer, Identity, Survey
from distckpt.state.variable_reads import (
    LARGE,
    checksum,
    copy_of,
    has_shape,
    on_host,
    read,
    read_variables,
    share_on_read,
)
from distckpt.state.writing.tensorflow_ops import OpWriter, os_errors

_NO_CHECK = Check()


class _OutdatedError(Exception):
    """A variable has changed since the survey."""


class Share:
    """One worker's pieces, sorted by the source of their values. Made once for a plan.

    Args:
      survey: The source of the values.
      pieces: The worker's share of the plan.

    Attributes:
      whole: Reads the resource variables that are held whole.
      identities: Those of the pieces that `whole` reads, in its order.
      divided: Resource variables of which only some rows are held, with the same functions.
      given: The pieces whose values the survey's `ask` returns.
      collective: The pieces that all workers read together.
    """

    def __init__(self, survey: Survey, pieces: Sequence[Piece]) -> None:
        whole: set[Identity] = set()
        self.divided: list[tuple[Piece, Callable[[], Any]]] = []
        self.given: list[tuple[Piece, Identity]] = []
        self.collective: list[tuple[Piece, Identity]] = []
        for piece in pieces:
            entry = piece.entry
            source = (entry.key, entry.spec)
            if entry.collective:
                self.collective.append((piece, source))
            elif source not in survey.variables:
                self.given.append((piece, source))
            elif piece.rows is None:
                whole.add(source)
            else:
                self.divided.append((piece, survey.variables[source]))
        sources = [(n, source) for n, source in enumerate(survey.variables) if source in whole]
        self.whole = survey.reads.part([number for number, _ in sources])
        self.identities = [sources[position][1] for position in self.whole.order]


class Copies:
    """This worker's copies of pieces that other workers write, held for their checksums.

    On CPU, copies of variables share the variables' buffers until the program changes these.
    Everything else is copied.

    Args:
      survey: The source of the values.
      values: The values that are not from variables.
      pieces: The pieces.
    """

    def __init__(
        self, survey: Survey, values: dict[Identity, Any], pieces: Sequence[Piece]
    ) -> None:
        sources = {(p.entry.key, p.entry.spec): p.entry for p in pieces}
        variables = {s: survey.variables[s]() for s in sources if s in survey.variables}
        for source, variable in variables.items():
            if sources[source].nbytes >= LARGE:
                share_on_read(variable)
        held = {source: copy_of(values[source]) for source in sources if source not in variables}
        held.update(zip(variables, read_variables(list(variables.values())), strict=True))
        self._held = [(piece, held[(piece.entry.key, piece.entry.spec)]) for piece in pieces]

    def tasks(self) -> list[Callable[[], int]]:
        """Returns functions that compute the checksums."""
        return [functools.partial(self._compute, number) for number in range(len(self._held))]

    def release(self) -> None:
        """Releases all copies."""
        self._held = []

    def _compute(self, number: int) -> int:
        piece, tensor = self._held[number]
        self._held[number] = (piece, None)
        return checksum(on_host(tensor), piece.rows)


class Capture:
    """Captures one worker's share of a checkpoint's state for each save.

    The survey and the plan are made once, and again when the tracked objects have changed (see
    `Survey`).

    Args:
      checkpoint: The checkpoint to save.
      workers: The number of workers that share the writing.
      index: This worker's index.
      split: "distributed": only variables made under a `tf.distribute` strategy are known to
        be equal on all workers; the chief writes the rest. "all": everything is equal everywhere.
      writer: Writes the bundles. Default: TensorFlow's op.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        *,
        workers: int,
        index: int,
        split: str,
        writer: BundleWriter | None = None,
    ) -> None:
        self._writer = writer or OpWriter()
        self._checkpoint = checkpoint
        self._workers = workers
        self._index = index
        self._split = split
        self._survey: Survey | None = None
        self._plan_of: tuple[Entry, ...] = ()
        self._plan = Plan((), ())
        self._share: Share | None = None

    def take(
        self, options: tf.train.CheckpointOptions | None = None, check: Check = _NO_CHECK
    ) -> tuple[CapturedState, Plan]:
        """Returns the state at this moment, and its write plan.

        Every worker, on its training thread, between two steps.

        Args:
          options: As given to ``save()``; ``experimental_io_device`` and
            ``experimental_sharding_callback`` are honoured.
          check: Which copies of other workers' pieces are captured, too.

        Raises:
          UnsupportedOptionError: Several workers cannot save in graph mode or with `options`.
        """
        if not tf.executing_eagerly():
            return self._delegate(options, "saving in graph mode")
        if options is not None and options.experimental_sharding_callback is not None:
            return self._delegate(options, "experimental_sharding_callback")
        for again in (True, False):
            survey, answer = self._ask()
            if survey.several_tasks:
                self._survey = None
                return self._delegate(options, "state on several tasks")
            try:
                return self._hold(survey, answer, options, check), self._plan
            except _OutdatedError:
                self._survey = None
                if not again:
                    raise
        raise AssertionError

    def counters(self, *, again: bool = False) -> dict[str, int]:
        """Returns the integer scalars of the state that are equal on all workers, by name.

        Empty in graph mode. Every worker, on its training thread.

        Args:
          again: Whether the tracked objects are the same as a moment ago, so that nobody looks.
        """
        if not tf.executing_eagerly():
            return {}
        if self._survey is None or not (again or self._survey.is_current()):
            self._survey = Survey(self._checkpoint, self._split)
            self._survey.forget_values()
            self._share = None
        return {name: int(find().numpy()) for name, find in self._survey.counters().items()}

    def _ask(self) -> tuple[Survey, Answer]:
        """Returns a current survey, and what it answers."""
        answer = self._survey.ask() if self._survey is not None else None
        if self._survey is None or answer is None:
            self._survey = Survey(self._checkpoint, self._split)
            answer = self._survey.ask()
            assert answer is not None
            self._share = None
        return self._survey, answer

    def _hold(
        self,
        survey: Survey,
        answer: Answer,
        options: tf.train.CheckpointOptions | None,
        check: Check,
    ) -> TensorState:
        """Captures this worker's share, with a current plan."""
        if self._share is None or survey.entries != self._plan_of:
            self._plan_of = survey.entries
            self._plan = make_plan(self._plan_of, self._workers)
            self._share = Share(survey, self._plan.shares[self._index])
        copies = None
        if check.mode != "off":
            others = replica_check.copies(self._plan, self._index, check)
            copies = Copies(survey, answer.values, others)
        return TensorState(survey, answer, self._share, self._writer, options, copies)

    def _delegate(self, options: Any, what: str) -> tuple[CapturedState, Plan]:
        if self._workers > 1:
            raise UnsupportedOptionError(
                f"{what} cannot be shared between {self._workers} workers. Save eagerly, without a "
                "sharding callback, and only variables of the worker that reads them."
            )
        return DelegatedState(self._checkpoint, options), make_plan((), 1)


class TensorState(CapturedState):
    """Values held as eager tensors.

    Args:
      survey: The source of the values.
      answer: What it answers.
      share: This worker's share.
      writer: Writes the bundles.
      options: As given to ``save()``.
      copies: Copies of other workers' pieces; None if they are not compared.

    Raises:
      _OutdatedError: The survey is out of date.
    """

    def __init__(
        self,
        survey: Survey,
        answer: Answer,
        share: Share,
        writer: BundleWriter,
        options: Any,
        copies: Copies | None = None,
    ) -> None:
        self._copies = copies
        self._savers = survey.savers
        self.held = not survey.savers  # these read the state when they write
        self._writer = writer
        self._indexes: dict[str, WrittenIndex] = {}  # of written bundles, by their stems
        self._device = (options and options.experimental_io_device) or None
        self._named: dict[Identity, Any] = {}
        self._naming = threading.Lock()
        self._together = dict(survey.together)
        self._collective = share.collective
        for piece, source in share.given:
            self._keep(piece, answer.values[source])
        # The survey has read all variables, for itself.
        whole = share.whole.read(answer.read if share.whole is survey.reads else None)
        if whole is None:
            raise _OutdatedError
        self._unnamed, self._identities = whole, share.identities
        self._read_divided(share)

    @property
    def _values(self) -> dict[Identity, Any]:
        """The values by identity: made when they are written, so that training goes on sooner."""
        with self._naming:
            if self._unnamed:
                self._named.update(zip(self._identities, self._unnamed, strict=True))
                self._unnamed = []
        return self._named

    def _read_divided(self, share: Share) -> None:
        """Reads one by one: each becomes a copy, so the whole variables need not be held."""
        for piece, find in share.divided:
            variable = find()
            share_on_read(variable)
            (tensor,) = read_variables([variable])
            if not has_shape(tensor, piece.entry.shape):
                raise _OutdatedError
            self._keep(piece, tensor)

    def _keep(self, piece: Piece, tensor: Any) -> None:
        """Holds a copy: of a variable's rows, or of a value whose memory may be shared."""
        self._named[piece.identity] = copy_of(tensor, piece.rows)

    def read_together(self) -> None:
        """See the base class."""
        for identity, value in self._together.items():
            tensor = read(value)
            for piece, source in self._collective:
                if source == identity:
                    self._keep(piece, tensor)
        self._together = {}

    def copies(self) -> list[Callable[[], int]] | None:
        """See the base class."""
        return None if self._copies is None else self._copies.tasks()

    def release(self) -> None:
        """See the base class."""
        if self._copies is not None:
            self._copies.release()
        self._unnamed = []
        self._named.clear()
        self._together.clear()

    def write(self, folder: str, stem: str, pieces: Sequence[Piece]) -> tuple[str, ...]:
        """See the base class."""
        prefixes: list[str] = []
        if any(p.entry.key == OBJECT_GRAPH_KEY for p in pieces):
            prefixes += self._run_savers(folder, stem)
        if pieces:
            values = self._values
            tensors = [values.pop(p.identity) for p in pieces]
            keys, specs = [p.entry.key for p in pieces], [p.spec for p in pieces]
            index = self._writer.write(join(folder, stem), keys, specs, tensors, self._device)
            if index is not None:
                self._indexes[stem] = index
            prefixes.append(stem)
        return tuple(prefixes)

    def take_index(self, prefix: str) -> WrittenIndex | None:
        """See the base class."""
        return self._indexes.pop(prefix, None)

    def _run_savers(self, folder: str, stem: str) -> list[str]:
        """Makes the registered savers write first, as TensorFlow does."""
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
    """Returns the name within `folder` of a bundle that a registered saver reports."""
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
    with os_errors(path), tf.device("CPU:0"):  # in a subfolder; move it up, by renames
        flat = f"{prefix}-{number}"
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[path],
            destination_prefix=join(folder, flat),
            delete_old_dirs=True,
        )
    return flat
