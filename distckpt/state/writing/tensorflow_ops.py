"""Writes and merges tensor bundles with TensorFlow's ops SaveV2 and MergeV2Checkpoints."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from distckpt.core.layout import join
from distckpt.core.tensorflow_format.index_writer import WrittenIndex
from distckpt.state.base import BundleWriter, Merger


@contextlib.contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turns TensorFlow's errors about `path` into `OSError`, with `errno` set."""
    try:
        yield
    except tf.errors.OpError as error:
        text = error.message or type(error).__name__
        code = errno.EIO
        if isinstance(error, tf.errors.ResourceExhaustedError) or "No space left" in text:
            code = errno.ENOSPC
        elif isinstance(error, tf.errors.NotFoundError):
            code = errno.ENOENT
        elif isinstance(error, tf.errors.PermissionDeniedError):
            code = errno.EACCES
        raise OSError(code, text.split("\n")[0], path) from error


def run_eagerly(function: Callable[[], Any]) -> None:
    """Runs ops now: directly when executing eagerly, else in a new session."""
    if tf.executing_eagerly():
        function()
        return
    with tf.Graph().as_default():
        operation = function()
        with tf.compat.v1.Session() as session:
            session.run(operation)


class OpWriter(BundleWriter):
    """Writes with ``SaveV2``."""

    def write(
        self,
        path: str,
        keys: Sequence[str],
        specs: Sequence[str],
        tensors: list[Any],
        device: str | None = None,
    ) -> WrittenIndex | None:
        """See the base class."""
        with os_errors(path), tf.device(device or "CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=path,
                tensor_names=list(keys),
                shape_and_slices=list(specs),
                tensors=tensors,
            )
        return None


class BundleMerger(Merger):
    """Merges with ``MergeV2Checkpoints``, on this process's CPU."""

    def merge(self, folder: str, prefixes: Sequence[str], name: str) -> None:
        """See the base class."""
        target = join(folder, name)

        def op() -> Any:
            with tf.device("CPU:0"):
                return tf.raw_ops.MergeV2Checkpoints(
                    checkpoint_prefixes=[join(folder, p) for p in prefixes],
                    destination_prefix=target,
                    delete_old_dirs=False,
                )

        with os_errors(target):
            run_eagerly(op)
