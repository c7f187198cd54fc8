"""Reads ``TF_CONFIG``, which describes the job to a process. Only this module reads it. Pure.

    {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}

It has the same meaning as for ``tf.distribute.cluster_resolver.TFConfigClusterResolver`` and the
strategies. Without a cluster a process is alone. The chief, if the cluster has one, is worker 0,
and TensorFlow's "worker 0" is then worker 1. Parameter servers and evaluators are not workers,
and an evaluator need not be in the cluster. "master" is the old name of the chief: TensorFlow's
strategies refuse it, but a program without a strategy may use it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from distckpt.arguments import is_integer
from distckpt.errors import ConfigurationError

VARIABLE = "TF_CONFIG"
CHIEFS = ("chief", "master")
WORKERS = (*CHIEFS, "worker")  # in the order in which workers are numbered
_KNOWN = (*WORKERS, "ps", "evaluator")
_EXAMPLE = '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", '
_EXAMPLE += '"index": 0}}'
_MOST = 10**9
_SHOWN = 120  # characters of an invalid value


class Task(NamedTuple):
    """A task of the cluster: TensorFlow's type and index, and its address, "host:port"."""

    kind: str
    number: int
    address: str = ""

    @property
    def name(self) -> str:
        """The name in messages: "worker 1", or "chief" (there is only one)."""
        return self.kind if self.kind in CHIEFS else f"{self.kind} {self.number}"


@dataclasses.dataclass(frozen=True)
class TFConfig:
    """The content of ``TF_CONFIG``.

    Attributes:
      cluster: The tasks of each type, in the order of their index; empty without a cluster: then
        the process is alone.
      task: The task of this process; None if it is not given.
    """

    cluster: Mapping[str, tuple[Task, ...]] = dataclasses.field(default_factory=dict)
    task: Task | None = None

    @property
    def workers(self) -> tuple[Task, ...]:
        """The tasks that train together, in order; empty with parameter servers."""
        if self.has_parameter_servers:
            return ()
        return tuple(task for kind in WORKERS for task in self.cluster.get(kind, ()))

    @property
    def index(self) -> int | None:
        """The number of this process among the `workers`; None if it is not one of them."""
        return self.workers.index(self.task) if self.task in self.workers else None

    @property
    def own_task(self) -> Task:
        """The `task` of this process.

        Raises:
          ConfigurationError: It is not given.
        """
        if self.task is None:
            raise _wrong('"task" does not say which task of the cluster this process is')
        return self.task

    @property
    def has_parameter_servers(self) -> bool:
        """Whether the job has parameter servers, so that its coordinator works alone."""
        return "ps" in self.cluster

    @property
    def is_evaluator(self) -> bool:
        """Whether this process is an evaluator, which works alone."""
        return self.task is not None and self.task.kind == "evaluator"


def of(environ: Mapping[str, str]) -> TFConfig:
    """Returns the ``TF_CONFIG`` in `environ`; if it is not set or blank, the process is alone.

    Raises:
      ConfigurationError: See `parse`.
    """
    return parse(environ.get(VARIABLE, ""))


def parse(text: str) -> TFConfig:
    """Returns the configuration in `text`, the value of ``TF_CONFIG``.

    Raises:
      ConfigurationError: It is invalid; the message says what is wrong and where.
    """
    if not text.strip():
        return TFConfig()
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"it is not valid JSON: {error}") from None
    config = _object(config, "it must be a JSON object")
    given = _object(config.get("cluster", {}), '"cluster" must be an object')
    cluster = {kind: _tasks(kind, addresses) for kind, addresses in given.items()}
    _check_numbers(cluster)
    if sum(len(cluster.get(kind, ())) for kind in CHIEFS) > 1:
        raise _wrong('"cluster" has more than one chief (the tasks "chief" and "master")')
    return TFConfig(cluster, _task(config.get("task", {}), cluster))


def _tasks(kind: str, addresses: Any) -> tuple[Task, ...]:
    """Returns the tasks of one type. As in TensorFlow, an object may give each its index."""
    where = f'"cluster": {_show(kind)}'
    if kind not in _KNOWN:
        known = "chief, worker, ps, evaluator"
        raise _wrong(f"{where} is not a task type that TensorFlow knows: {known}")
    if isinstance(addresses, dict):
        by_index = {_whole(index): address for index, address in addresses.items()}
    elif isinstance(addresses, list):
        by_index = dict(enumerate(addresses))
    else:
        raise _wrong(f'{where} must be a list like ["host:2222"], got {_show(addresses)}')
    if not by_index:
        raise _wrong(f"{where} has no address. Leave it out, or say where its tasks are")
    tasks = []
    for number, address in by_index.items():
        if number is None:
            raise _wrong(f"{where} must have whole numbers as keys, got {_show(addresses)}")
        if not isinstance(address, str) or not address:
            text = f'the address of {kind} {number} must be like "host:2222"'
            raise _wrong(f"{where}: {text}, got {_show(address)}")
        tasks.append(Task(kind, number, address))
    return tuple(sorted(tasks, key=lambda task: task.number))


def _check_numbers(cluster: Mapping[str, tuple[Task, ...]]) -> None:
    """Refuses gaps in the numbers of workers, which are useful only with parameter servers."""
    for kind in WORKERS if "ps" not in cluster else ():
        numbers = [task.number for task in cluster.get(kind, ())]
        if numbers != list(range(len(numbers))):
            raise _wrong(f'"cluster": "{kind}" must have the keys 0 to n-1, got {_show(numbers)}')


def _task(given: Any, cluster: Mapping[str, tuple[Task, ...]]) -> Task | None:
    """Returns the task of this process. It must be valid even without a cluster."""
    task = _object(given, '"task" must be an object')
    if not task:
        return None
    kind, number = task.get("type"), _whole(task.get("index"))
    if not isinstance(kind, str) or kind not in _KNOWN:
        raise _wrong(f'"task": "type" must be chief, worker, ps or evaluator, got {_show(kind)}')
    if number is None:
        got = _show(task.get("index"))
        raise _wrong(f'"task": "index" must be a whole number, 0 or more, got {got}')
    me = Task(kind, number)
    there = {each.number: each for each in cluster.get(kind, ())}
    is_foreign = not cluster or (kind == "evaluator" and not there)
    if number not in there and not is_foreign:
        has = f"the cluster has {len(there)} of that type" if there else "the cluster has none"
        raise _wrong(f'"task": this process is {me.name}, and {has}')
    return there.get(number, me)


def _whole(value: Any) -> int | None:
    """Returns an index, which TensorFlow takes as a number or text; None if it is not an index."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_integer(value):
        return value if 0 <= value < _MOST else None
    return decimal(value) if isinstance(value, str) else None


def decimal(text: str) -> int | None:
    """Returns the number in `text`; None unless it consists of one to nine ASCII digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what}, got {_show(value)}")
    return value


def _show(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "something very deep"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _wrong(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"TF_CONFIG: {text}. It should look like {_EXAMPLE}. Correct it where the job is "
        "described, or unset it if this process works alone."
    )
