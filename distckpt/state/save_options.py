"""Handles the `tf.train.CheckpointOptions` that concern the manager, not the writer."""

from __future__ import annotations

import inspect

import tensorflow as tf


def asks_for_async(options: tf.train.CheckpointOptions | None) -> bool:
    """Returns whether this save must be asynchronous."""
    return isinstance(options, tf.train.CheckpointOptions) and bool(
        options.enable_async or options.experimental_enable_async_checkpoint
    )


def call_back(options: tf.train.CheckpointOptions | None, path: str) -> None:
    """Calls the user's write callbacks, with as many arguments as each takes."""
    for callback in (options and options.experimental_write_callbacks) or []:
        callback(*[path][: len(inspect.signature(callback).parameters)])
