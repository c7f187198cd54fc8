"""What `tf.train.CheckpointOptions` ask of a manager, rather than of the one who writes."""

from __future__ import annotations

import inspect

import tensorflow as tf


def asks_for_async(options: tf.train.CheckpointOptions | None) -> bool:
    """Returns whether this save is to be asynchronous."""
    return options is not None and bool(
        options.enable_async or options.experimental_enable_async_checkpoint
    )


def call_back(options: tf.train.CheckpointOptions | None, path: str) -> None:
    """Calls the user's write callbacks, each with as many arguments as it takes."""
    for callback in (options and options.experimental_write_callbacks) or []:
        callback(*[path][: len(inspect.signature(callback).parameters)])
