"""Refuses arguments of `CheckpointCallback` that make no sense, and a model that is not built."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from distckpt.errors import ConfigurationError


def check_together(
    *,
    best_only: bool,
    monitor: str | None,
    preemption: bool,
    restore: bool,
    has_manager: bool,
    has_options: bool,
) -> None:
    """Raises ConfigurationError for arguments that do not go together."""
    if best_only and monitor is None:
        raise ConfigurationError("save_best_only needs the name of a metric as monitor.")
    if preemption and not restore:
        raise ConfigurationError("preemption restores in any case: leave restore at True.")
    if has_manager and has_options:
        raise ConfigurationError(
            "max_to_keep, options and worker_checkpoint are the manager's: give them to it."
        )


def check_frequency(save_freq: Any, other: bool) -> None:
    """Raises ConfigurationError if `save_freq` is none.

    Args:
      save_freq: What was given.
      other: Whether there is another reason to save, so that it may be False.
    """
    if save_freq == "epoch" or (save_freq is False and other):
        return
    if isinstance(save_freq, bool) or not isinstance(save_freq, Integral) or save_freq < 1:
        raise ConfigurationError(
            'save_freq must be "epoch", a positive number of batches, or, with preemption or '
            f"save_at_end, False; got {save_freq!r}."
        )


def build(model: Any) -> None:
    """Makes the optimizer's variables, so that they are restored, too.

    Raises:
      ConfigurationError: The model has no variables yet.
    """
    if not model.built:
        raise ConfigurationError(
            "CheckpointCallback restores the model before its first batch, so the model must be "
            "built: give it an Input, call model.build(shape), or call it on a batch, before fit."
        )
    optimizer = model.optimizer
    built = getattr(optimizer, "built", getattr(optimizer, "_built", False))
    if not built and callable(getattr(optimizer, "build", None)):
        optimizer.build(model.trainable_variables)
