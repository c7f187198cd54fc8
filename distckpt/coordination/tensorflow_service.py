"""Coordination through TensorFlow's own coordination service.

`MultiWorkerMirroredStrategy` starts it: a key-value store and heartbeats over the job's gRPC port,
in the process of the chief (``chief`` in TF_CONFIG, else worker 0). A silent worker, whether
killed or ended normally, is declared dead after about 10 s, and the store goes on working; when the
chief dies, the store is lost.

All private TensorFlow API that distckpt needs for coordination is used here, and nowhere else:
``tensorflow.python.eager.context`` with its ``*_config_key_value`` and ``get_task_states``. They
follow ``xla/tsl/distributed_runtime/coordination`` in TensorFlow's source, with its peculiarities:
calls other than "get" have no deadline, "get" cannot be cancelled, "delete" treats a key as a
directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from distckpt import errors
from distckpt.coordination import base
from distckpt.coordination.background import Background
from distckpt.coordination.crew import Crew
from distckpt.coordination.inquiry import Inquiry
from distckpt.coordination.watches import Forgotten, Watches

_Result = TypeVar("_Result")

_JOBS = ("chief", "worker")  # in the order in which workers are numbered
_VALUE = "="  # the first character of every value …
_FORGOTTEN = "-"  # … except for the mark that the key is being forgotten

# All in seconds.
_PATIENCE = 3.0  # how long a broken connection is retried: gRPC's first two pauses
_GLANCE = 0.5  # how long `publish` waits before it asks about the chief
_PUBLISH = 60.0  # how long `publish` waits while the service answers other calls
_FORGET = 2.0  # how long `forget` waits

# The threads of this process: those that wait for keys, however many these are, and the rest for
# calls that end at once, unless the service hangs.
THREADS = 8
_WAITING = 4
_crew = Crew(0)

_TASK = re.compile(r"(?:Task )?/job:(\w+)/replica:\d+/task:(\d+)")
_BROKEN = re.compile(
    r"connection (?:refused|reset by peer|timed out|aborted)|socket closed|no route to host"
    r"|(?:dns|name) resolution fail\w*",
    re.IGNORECASE,
)
_NO_CONNECTION = re.compile("failed to connect to all addresses")  # all that older versions say


class TensorFlowService(base.Coordinator):
    """One worker of a `tf.distribute.MultiWorkerMirroredStrategy` job.

    Args:
      namespace: The prefix of every key; the same on all workers.

    Raises:
      errors.ConfigurationError: No coordination service runs in this process.
    """

    def __init__(self, namespace: str = "distckpt") -> None:
        job = _Job.of_this_process()
        if job is None:
            raise errors.ConfigurationError(
                "no coordination service runs in this process: create the "
                "MultiWorkerMirroredStrategy first, with TF_CONFIG set"
            )
        self._job = job
        self._namespace = namespace
        self._context = tf_context.context()
        _crew.grow(THREADS)
        self._watches = Watches(self._get, _crew, _WAITING)
        self._connection = _Connection()
        self._mark = self._full(f"mark/{job.index}/{secrets.token_hex(8)}")
        self._marked = False
        self._restarted = False
        self._marking = threading.Lock()
        self._all = Inquiry(lambda: self._ask(self._states), job.leader, _crew)
        self._chief = Inquiry(lambda: self._ask(list), job.leader, _crew)
        self._chief.begin()  # sets the mark

    @staticmethod
    def available() -> bool:
        """Returns whether this process is one of several workers with a coordination service.

        Initialises nothing: before the strategy is created, the answer is no.
        """
        job = _Job.of_this_process()
        return job is not None and len(job.tasks) > 1

    @property
    def index(self) -> int:
        """See base; the task "chief", if there is one, comes first."""
        return self._job.index

    @property
    def count(self) -> int:
        """See base."""
        return len(self._job.tasks)

    @property
    def mirrors_only_distributed(self) -> bool:
        """See base."""
        return True

    def name(self, index: int) -> str:
        """Returns what TF_CONFIG calls worker `index`: "chief" or "worker 1"."""
        return self._job.name(index)

    def publish(self, key: str, value: str) -> None:
        """See base. Returns once the service has it, in about 0.5 ms."""
        if "\0" in value:
            raise ValueError(f"the value of {key} has a NUL character, where TensorFlow cuts it")
        call = Background(lambda: self._set(self._full(key), _VALUE + value), _crew)
        while not call.finished(_GLANCE):
            reason = self.chief_lost()
            if reason is None and call.seconds() >= _PUBLISH:
                reason = f"its coordination service did not take a key in {_PUBLISH:g} s"
            if reason is not None:
                raise self._gone(self._job.leader, reason)
        with self._explained():
            call.result()

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See base. A key is found about 0.5 ms after it was published."""
        keys_by_full = {self._full(key): key for key in keys}
        with self._explained():
            found = self._watches.fetch(list(keys_by_full), timeout)
        return None if found is None else (keys_by_full[found[0]], found[1])

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """See base."""
        keys_by_full = {self._full(key): key for key in keys}
        with self._explained():
            found = self._watches.fetch_all(list(keys_by_full), timeout)
        return [(keys_by_full[full], value) for full, value in found]

    def lost(self) -> dict[int, str]:
        """See base. Answers within a second, if necessary with the last known state."""
        leader = self._chief.answer()
        if leader or not self._chief.answered:  # see `_states`
            return self._all.last | leader
        return self._all.answer()

    def chief_lost(self) -> str | None:
        """See base."""
        return self._chief.answer().get(self._job.leader)

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        full = [self._full(key) for key in keys]
        self._watches.drop(full)
        with contextlib.suppress(errors.CoordinationError):
            Background(lambda: self._forget(full), _crew).finished(_FORGET)

    def stop_waiting(self, keys: Sequence[str]) -> None:
        """See base."""
        self._watches.stop_waiting([self._full(key) for key in keys])

    def close(self) -> None:
        """Ends all waiting. The other workers are not told; the service itself runs on."""
        self._watches.close()

    # --- Calls that may block -------------------------------------------------------------------

    def _set(self, key: str, value: str) -> None:
        with contextlib.suppress(tf.errors.AlreadyExistsError):
            self._connection.use(lambda: self._context.set_config_key_value(key, value))

    def _get(self, key: str, seconds: float) -> str | None:
        milliseconds = max(1, round(1000 * seconds))
        try:
            value: str = self._connection.use(
                lambda: self._context.get_config_key_value(key, milliseconds)
            )
        except tf.errors.DeadlineExceededError:
            return None
        if value == _FORGOTTEN:
            raise Forgotten
        return value[1:]

    def _forget(self, keys: Sequence[str]) -> None:
        with contextlib.suppress(tf.errors.OpError):
            for key in keys:
                # The service would keep calls that wait for an unpublished key forever. This mark
                # releases them.
                self._set(key, _FORGOTTEN)
                self._context.delete_config_key_value(key)

    def _ask(self, states: Callable[[], list[Any]]) -> dict[int, str]:
        """Asks the service if it is there, and then for the `states` of the workers."""
        try:
            if self._service_is_new():
                return {self._job.leader: "it was restarted, and the job's agreements are lost"}
            found = states()
        except tf.errors.OpError as error:
            return {self._at_fault(error): _reason(error)}
        return {n: _reason(state) for n, state in enumerate(found) if state is not None}

    def _states(self) -> list[Any]:
        """Returns the states of all workers: None, or the error.

        ``get_task_states`` holds the interpreter's lock until the answer is there. If the chief
        hangs at that moment, so does all of this process. So nobody calls it who only waits for
        the chief: the service runs in the chief's process, and lives as long.
        """
        states: list[Any] = self._connection.use(
            lambda: self._context.get_task_states(self._job.numbers_of_tasks())
        )
        return states

    def _service_is_new(self) -> bool:
        """Returns whether the chief was replaced: then the first mark can be set once more."""
        with self._marking:
            return self._is_marked_anew()

    def _is_marked_anew(self) -> bool:
        if not self._restarted:
            try:
                self._connection.use(lambda: self._context.set_config_key_value(self._mark, _VALUE))
                self._restarted, self._marked = self._marked, True
            except tf.errors.AlreadyExistsError:
                self._marked = True
        return self._restarted

    # --- Names and errors -----------------------------------------------------------------------

    def _full(self, key: str) -> str:
        # Without "/", so that deleting "a", for TensorFlow a directory, does not delete "a/b".
        return f"{self._namespace}:{key}".replace("/", ":")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError) as error:
            raise errors.CoordinationError(
                f"the coordination service refused the call: {_first_sentence(error.message)}"
            ) from error
        except tf.errors.OpError as error:
            raise self._gone(self._at_fault(error), _reason(error)) from error

    def _at_fault(self, error: tf.errors.OpError) -> int:
        """Returns the worker without which the service cannot be used."""
        # The error of this process's own agent after the service has declared it dead.
        own = isinstance(error, tf.errors.FailedPreconditionError)
        return self._job.index if own else self._job.leader

    def _gone(self, index: int, reason: str) -> errors.WorkerLostError:
        return errors.WorkerLostError(f"{self.name(index)} is lost: {reason}")


@dataclasses.dataclass(frozen=True)
class _Job:
    """The job's tasks and this process's place.

    Attributes:
      tasks: (job name, task number) of each worker.
      index: This process's worker index.
      leader: The worker index of the process that the service runs in.
    """

    tasks: tuple[tuple[str, int], ...]
    index: int
    leader: int

    @classmethod
    def of_this_process(cls) -> _Job | None:
        """Returns the job whose coordination service this process has joined, or None."""
        context = tf_context.context_safe()
        if context is None:
            return None
        service = context.coordination_service
        server = context._collective_ops_server_def
        if service is None or not service.service_type or server is None:
            return None
        numbers = {job.name: job.num_tasks for job in service.coordinated_job_list}
        tasks = tuple((job, n) for job in _JOBS for n in range(numbers.get(job, 0)))
        me = (server.job_name, server.task_index)
        if me not in tasks:
            return None
        leader = _task(service.service_leader)
        return cls(tasks, tasks.index(me), tasks.index(leader) if leader in tasks else 0)

    def name(self, index: int) -> str:
        job, number = self.tasks[index]
        return job if job == "chief" else f"{job} {number}"

    def numbers_of_tasks(self) -> list[tuple[str, int]]:
        """Returns the jobs with their sizes; the answer then has the order of `tasks`."""
        names = [job for job, _ in self.tasks]
        return [(job, names.count(job)) for job in _JOBS if job in names]


class _Connection:
    """Tells a broken connection, which is retried, from a service that was lost."""

    def __init__(self) -> None:
        self._down = False

    def use(self, call: Callable[[], _Result]) -> _Result:
        """Returns the result of `call`, retried for `_PATIENCE` while the service is unavailable.

        After that has failed, later calls fail at once, until one succeeds.
        """
        give_up = None
        pause = 0.05
        while True:
            try:
                result = call()
            except tf.errors.UnavailableError:
                now = time.monotonic()
                give_up = give_up or now + _PATIENCE  # the call itself may have lasted long
                if self._down or now >= give_up:
                    self._down = True
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
            else:
                self._down = False
                return result


def _task(name: str) -> tuple[str, int] | None:
    """Returns ("worker", 1) for "/job:worker/replica:0/task:1"."""
    match = _TASK.match(name)
    return (match[1], int(match[2])) if match else None


def _reason(error: Any) -> str:
    """Returns in one line why a worker, or the service, is lost."""
    text = str(error.message or type(error).__name__)
    if broken := _BROKEN.search(text) or _NO_CONNECTION.search(text):
        return f"its coordination service cannot be reached: {broken[0].lower()}"
    if isinstance(error, tf.errors.CancelledError):
        return "its coordination service has been shut down"
    return _first_sentence(text)


def _first_sentence(text: str) -> str:
    """Returns the first sentence of a TensorFlow message, without its subject if that is a task."""
    line = text.strip().split("\n", 1)[0]
    sentence = re.split(r"\.(?:\s|$)", _TASK.sub("", line, count=1).strip(" :"), maxsplit=1)[0]
    return sentence[:200]
