"""Checks of arguments: those of a `CheckpointManager`, beyond TensorFlow's own, and of policies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from distckpt.errors import ConfigurationError


def is_integer(value: object) -> TypeGuard[int]:
    """Returns whether `value` is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether `value` is an integer or a float; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refuse_steps(value: object) -> None:
    """Refuses what cannot be the argument of a policy `EverySteps`."""
    if not is_integer(value) or value < 1:
        raise ConfigurationError(f"EverySteps takes a positive number of steps, got {value!r}.")


def sorted_steps(values: Iterable[int]) -> tuple[int, ...]:
    """Returns the argument of a policy `AtSteps`, sorted and without repetitions."""
    steps = tuple(values) if isinstance(values, Iterable) else ()
    if not steps or not all(map(is_integer, steps)):
        raise ConfigurationError(f"AtSteps takes one or more step numbers, got {values!r}.")
    return tuple(sorted(set(steps)))


def whole(max_to_keep: Any) -> int | None:
    """Returns how many checkpoints to keep; 2.5 keeps two, as in TensorFlow."""
    if max_to_keep is None:
        return None
    if max_to_keep < 1:  # TensorFlow would delete the checkpoint just saved
        raise ConfigurationError(f"max_to_keep must be at least 1, or None, got {max_to_keep!r}.")
    return int(max_to_keep)


def hours(every: Any) -> float | None:
    """Returns ``keep_checkpoint_every_n_hours`` as a number."""
    if every is None:
        return None
    try:
        return float(every / 1)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"keep_checkpoint_every_n_hours must be a number of hours, or None, got {every!r}."
        ) from None


def refuse_unusable(path: str) -> None:
    """Refuses paths that TensorFlow cannot write to, or cannot restore from."""
    if not _is_text(path):
        raise ConfigurationError(
            f"TensorFlow cannot use the path {path!r}, because its bytes are not UTF-8. Choose "
            "another directory."
        )
    if re.search(r"\\|\[[^/]*\]", path):
        raise ConfigurationError(
            f"Checkpoints at {path!r} could be saved, but never restored: TensorFlow treats [...] "
            "and \\ in the path of a checkpoint as a pattern. Choose another directory or name."
        )


def refuse_others(name: str, value: object, kind: type) -> None:
    """Refuses a `value` of the argument `name` that is not of the class `kind`."""
    if not isinstance(value, kind):
        module = kind.__module__.split(".")[0]
        where = "tf.train" if module == "tensorflow" else module
        raise ConfigurationError(
            f"{name} must be a {where}.{kind.__name__}, got {type(value).__name__}."
        )


def metrics(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the metrics given to ``save(metrics=…)`` as Python floats."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigurationError(
            f'metrics must be a dictionary such as {{"val_loss": 0.3}}, got {values!r}.'
        )
    found = {}
    for name, value in values.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigurationError(
                f"metrics[{name!r}] must be a number, got {value!r} ({error})."
            ) from None
        if not isinstance(name, str) or not name or not _is_text(name):
            raise ConfigurationError(f"The names of metrics must be strings, got {name!r}.")
    return found


def _is_text(value: str) -> bool:
    """Returns whether UTF-8 can encode `value`; it cannot encode a lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
