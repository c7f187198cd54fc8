"""Compares values of a metric: which one is better."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from distckpt.errors import ConfigurationError

_log = logging.getLogger("distckpt")
Mode = Literal["auto", "min", "max"]
# Parts of the names of Keras' metrics. Those for "min" are checked first, because some names have
# both: "cosine_loss".
_SMALLER = ("loss", "error", "entropy", "mae", "mse", "mape", "msle", "divergence", "hinge")
_LARGER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "fmeasure", "r2", "cosine")


class Monitor:
    """Compares the values of one metric.

    Args:
      name: The metric's name in the logs, e.g. "val_loss".
      mode: "min" or "max", or "auto": by the name.

    Raises:
      ConfigurationError: The mode is invalid, or "auto" does not know the name.
    """

    def __init__(self, name: str, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(f'mode must be "auto", "min" or "max", got {mode!r}.')
        self.name = name
        self.largest = mode == "max" if mode != "auto" else _is_larger_better(name)

    def __str__(self) -> str:
        """Returns the metric and the mode, e.g. "val_loss (min)"."""
        return f"{self.name} ({'max' if self.largest else 'min'})"

    def improves(self, value: float, best: float) -> bool:
        """Returns whether `value` is better than `best`; `best` is NaN if there is none so far."""
        if math.isnan(value) or math.isnan(best):
            return not math.isnan(value)
        return value > best if self.largest else value < best

    def decide(self, metrics: Mapping[str, float], best: float, best_only: bool) -> float | None:
        """Returns the best value including this save; None if nothing should be saved.

        Args:
          metrics: The metrics of this save.
          best: The best value so far; NaN for none.
          best_only: Whether to save only if the metric is better.
        """
        value = metrics.get(self.name)
        if value is not None and self.improves(value, best):
            return value
        if value is None and best_only:
            _log.warning(
                "There is no metric %s in the logs, so nothing is saved; there are: %s.",
                self.name,
                ", ".join(sorted(metrics)) or "none",
            )
        return None if best_only else best


def same(one: float, other: float) -> bool:
    """Returns whether two values are the same, or both NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def _is_larger_better(name: str) -> bool:
    for parts, answer in ((_SMALLER, False), (_LARGER, True)):
        if any(part in name.lower() for part in parts):
            return answer
    raise ConfigurationError(
        f'The name does not say whether a small or a large "{name}" is better: give mode="min" or '
        'mode="max".'
    )


def numbers_in(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the single numbers among `fit`'s logs, as floats."""
    found = {}
    for name, value in (logs or {}).items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue  # some metrics are vectors
    return found
