"""What becomes of this package's code when a program calls it within a `tf.function`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import tensorflow as tf

_Function = TypeVar("_Function", bound=Callable[..., object])


def without_autograph(function: _Function) -> _Function:
    """Keeps AutoGraph from converting `function`, and whatever it calls, to graph code.

    Within a `tf.function`, AutoGraph rewrites each Python function that is called, turning loops
    and conditions into graph ops. Code that waits for other workers with a deadline must run as it
    was written and tested.
    """
    return cast(_Function, tf.autograph.experimental.do_not_convert(function))


def refuse_in_function(call: str) -> None:
    """Raises RuntimeError while a function is traced, because variables then have no values."""
    if tf.inside_function() and not tf.executing_eagerly():
        raise RuntimeError(
            f"{call} was called within a tf.function, or a function of tf.data, where variables "
            "have no values: it would run once, when TensorFlow traces the function, and never "
            "again. "
            f"Call {call} outside of the function, or within it by tf.py_function, with all "
            "updates of variables before it in tf.control_dependencies."
        )
