"""Checks the arguments of `CheckpointCallback`, and that the model is built."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from distckpt.errors import ConfigurationError

_log = logging.getLogger("distckpt")


def check_together(best_only: bool, monitor: str | None, preemption: bool, restore: bool) -> None:
    """Raises ConfigurationError for arguments that do not go together."""
    if best_only and monitor is None:
        raise ConfigurationError("save_best_only needs the name of a metric as monitor.")
    if preemption and not restore:
        raise ConfigurationError("preemption always restores: do not give restore=False with it.")


def check_kinds(monitor: Any, remember: Any) -> None:
    """Raises ConfigurationError for arguments of the wrong kind."""
    if monitor is not None and not isinstance(monitor, str):
        raise ConfigurationError(f"monitor must be the name of a metric, got {monitor!r}.")
    if not isinstance(remember, Sequence):
        raise ConfigurationError(
            f"remember must be a list of callbacks, got a {type(remember).__name__}: write "
            "remember=[callback]."
        )


def check_frequency(save_freq: Any, other: bool) -> None:
    """Raises ConfigurationError if `save_freq` is invalid.

    Args:
      save_freq: The argument.
      other: Whether there is another reason to save, so that `save_freq` may be False.
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
            "built: give it an Input, call model.build(shape), or call it on a batch before fit."
        )
    optimizer = model.optimizer
    built = getattr(optimizer, "built", getattr(optimizer, "_built", False))
    if not built and callable(getattr(optimizer, "build", None)):
        optimizer.build(model.trainable_variables)


def warn_of_later_fit(number: int, directory: str) -> None:
    """Logs a warning if the checkpoint restored in a program's first `fit` is of a later one.

    Args:
      number: Which `fit` of its callback saved the checkpoint, from 1; 0 if there is none.
      directory: Where it is.
    """
    if number > 1:
        _log.warning(
            "The checkpoint restored from %s was saved in fit number %d with its callback, and is "
            "now continued in the first. If this program calls fit several times, too, it trains "
            "the later epochs again. To resume in the fit that was interrupted, give each fit a "
            "callback with a directory of its own.",
            directory,
            number,
        )
