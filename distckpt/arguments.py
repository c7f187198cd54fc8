"""Checks of what a `CheckpointManager` is given, beyond what TensorFlow checks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distckpt.errors import ConfigurationError


def whole(max_to_keep: Any) -> int | None:
    """Returns how many checkpoints to keep, as TensorFlow understands it: 2.5 keeps two."""
    if max_to_keep is None:
        return None
    if max_to_keep < 1:  # TensorFlow would delete what it has just saved
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


def refuse_patterns(path: str) -> None:
    """Refuses paths that TensorFlow cannot restore from."""
    if re.search(r"\\|\[[^/]*\]", path):
        raise ConfigurationError(
            f"Checkpoints at {path!r} could be saved, but never restored: TensorFlow takes [...] "
            "and \\ in the path of a checkpoint for a pattern. Choose another directory or name."
        )


def refuse_others(name: str, value: object, kind: type) -> None:
    """Refuses a `value` for the argument `name` that is not of the class `kind`."""
    if not isinstance(value, kind):
        module = kind.__module__.split(".")[0]
        where = "tf.train" if module == "tensorflow" else module
        raise ConfigurationError(
            f"{name} must be a {where}.{kind.__name__}, got {type(value).__name__}."
        )


def metrics(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the numbers that ``save(metrics=…)`` was given, as Python's."""
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
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"metrics[{name!r}] must be a number, got {value!r} ({error})."
            ) from None
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"The names of metrics must be texts, got {name!r}.")
    return found
