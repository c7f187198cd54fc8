"""Checks that the workers' inputs are consistent, before one worker waits for the others."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from distckpt.coordination.base import Coordinator
from distckpt.errors import ConfigurationError, DeadlineExceededError, WorkerLostError

_Made = TypeVar("_Made")
_GLANCE = 1.0  # seconds between two checks for deaths
_numbers = itertools.count(1)


def next_key() -> str:
    """Returns the key of the program's next input; equal on workers that make the same inputs."""
    return f"input-{next(_numbers)}"


def make_together(
    kind: str,
    make: Callable[[], tuple[_Made, dict[str, Any]]],
    coordinator: Coordinator,
    key: str,
    deadline: float,
) -> _Made:
    """Makes this worker's input, and checks that all workers have made equal ones.

    Every worker, at the same point of the program.

    Args:
      kind: The kind of input, for messages.
      make: Returns this worker's input, and by name the values that must be equal on all workers.
      coordinator: How to talk to the other workers.
      key: The key of this input; see `next_key`.
      deadline: Seconds to wait for the other workers.

    Raises:
      ConfigurationError: The inputs differ, or another worker could not make its input.
      DeadlineExceededError: A worker never came here; the text names it.
      WorkerLostError: A worker died; the text names it.
      Exception: What `make` raises.
    """
    here = coordinator.name(coordinator.index)
    with _telling_failure(kind, coordinator, key):
        made, facts = make()
    mine = {"kind": kind, **facts}
    coordinator.publish(f"{key}/{coordinator.index}", json.dumps(mine))
    for name, theirs in _words(kind, coordinator, key, deadline):
        if "failed" in theirs:
            raise ConfigurationError(f"{theirs['kind']} failed on {name}: {theirs['failed']}")
        if theirs != mine:
            raise ConfigurationError(_difference(here, mine, name, theirs))
    return made


@contextlib.contextmanager
def _telling_failure(kind: str, coordinator: Coordinator, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        word = {"kind": kind, "failed": f"{type(error).__name__}: {error}"}
        coordinator.publish(f"{key}/{coordinator.index}", json.dumps(word))
        raise


def _words(
    kind: str, coordinator: Coordinator, key: str, deadline: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each worker's name and message, in order of arrival."""
    end = time.monotonic() + deadline
    missing = {f"{key}/{worker}": worker for worker in range(coordinator.count)}
    while missing:
        left = end - time.monotonic()
        found = coordinator.fetch(list(missing), max(0.0, min(left, _GLANCE)))
        if found is not None:
            yield coordinator.name(missing.pop(found[0])), json.loads(found[1])
            continue
        for worker, reason in _lost(coordinator, missing.values()).items():
            name = coordinator.name(worker)
            raise WorkerLostError(f"{name} died before it made its {kind}: {reason}")
        if left <= 0:
            names = ", ".join(coordinator.name(worker) for worker in missing.values())
            raise DeadlineExceededError(
                f"After {deadline:g} s, these workers have not made their {kind}: {names}. All "
                "workers must make it, at the same point of the program. See what they do; if they "
                "only need longer, give a longer deadline."
            )


def _lost(coordinator: Coordinator, missing: Collection[int]) -> dict[int, str]:
    """Returns those of the missing workers that are dead; while the chief is missing, only it.

    Asking about the others could block for as long as the chief hangs.
    """
    if 0 in missing:
        reason = coordinator.chief_lost()
        return {} if reason is None else {0: reason}
    return {worker: why for worker, why in coordinator.lost().items() if worker in missing}


def _difference(here: str, mine: dict[str, Any], name: str, theirs: dict[str, Any]) -> str:
    if theirs["kind"] != mine["kind"]:
        return (
            f"The workers do not make the same inputs in the same order: {here} makes "
            f"{mine['kind']}, but {name} makes {theirs['kind']}."
        )
    what = next(fact for fact in mine if mine[fact] != theirs.get(fact))
    return (
        f"{mine['kind']}: {what} must be the same on all workers, but is {mine[what]} on {here} "
        f"and {theirs.get(what)} on {name}."
    )
