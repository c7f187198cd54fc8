"""Which value of a metric is the better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distckpt.errors import ConfigurationError

_MODES = ("auto", "min", "max")
# Parts of the names that Keras gives its metrics; of those that lead to "min" some are part of one
# that leads to "max": "categorical_crossentropy" is to be found before "acc" and the like.
_SMALLER = ("loss", "error", "entropy", "mae", "mse", "mape", "msle", "divergence", "hinge")
_LARGER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "fmeasure", "r2", "cosine")


class Monitor:
    """Compares the values of one metric.

    Args:
      name: The metric's name in the logs, e.g. "val_loss".
      mode: "min" or "max", or "auto": by the name.

    Raises:
      ConfigurationError: The mode is none of these, or the name does not tell.
    """

    def __init__(self, name: str, mode: str) -> None:
        if mode not in _MODES:
            raise ConfigurationError(f'mode must be "auto", "min" or "max", got {mode!r}.')
        self.name = name
        self.largest = mode == "max" if mode != "auto" else _is_larger_better(name)

    def improves(self, value: float, best: float) -> bool:
        """Returns whether `value` is better than `best`; NaN as `best` stands for none so far."""
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value > best if self.largest else value < best


def _is_larger_better(name: str) -> bool:
    for parts, answer in ((_SMALLER, False), (_LARGER, True)):
        if any(part in name.lower() for part in parts):
            return answer
    raise ConfigurationError(
        f'Whether a small or a large "{name}" is better cannot be told by its name: give '
        'mode="min" or mode="max".'
    )


def numbers_in(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns those of `fit`'s logs that are single numbers, as floats."""
    found = {}
    for name, value in (logs or {}).items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue  # some metrics are vectors
    return found
