"""Checks the arguments of a manager, and makes parts of it from them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from distckpt import arguments
from distckpt.coordination.base import Coordinator
from distckpt.core import layout, safe_names
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.errors import DirectoryError, explain
from distckpt.manager.job import Job
from distckpt.manager.shared_parts import Common
from distckpt.options import ManagerOptions
from distckpt.ownership.process_terms import ownership_of
from distckpt.runtime import portable, tf_version
from distckpt.runtime.own_process import OwnProcess
from distckpt.state.base import BundleWriter
from distckpt.state.worker_state import WorkerState
from distckpt.state.writing.direct_writer import DirectWriter
from distckpt.state.writing.tensorflow_ops import OpWriter
from distckpt.storage import obstacles
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


def check(directory: str, name: str, options: Any) -> None:
    """Raises ConfigurationError for arguments that TensorFlow's manager does not check."""
    tf_version.check(tf.version.VERSION)
    safe_names.check_checkpoint_name(name)
    arguments.refuse_unusable(layout.join(portable.slashes(directory), name))
    arguments.refuse_others("options", options, ManagerOptions)


@contextlib.contextmanager
def allow_damage(directory: str, max_to_keep: Any, interval: Any, steps: Any) -> Iterator[None]:
    """Logs the ValueError that TensorFlow's manager raises if its file `checkpoint` is damaged.

    Nothing that TensorFlow's manager reads there is used: the manifests say all that is needed. Its
    errors about bad arguments are not caught.
    """
    try:
        yield
    except ValueError:
        bad_count = max_to_keep is not None and max_to_keep <= 0
        if bad_count or (interval is not None and steps is None):
            raise
        _log.warning("The file `checkpoint` in %s is damaged.", directory)


def own_state(checkpoint: Any, options: ManagerOptions) -> WorkerState | None:
    """Returns what captures and restores a ``worker_checkpoint``; None if there is none."""
    if checkpoint is None:
        return None
    arguments.refuse_others("worker_checkpoint", checkpoint, tf.train.Checkpoint)
    return WorkerState(
        checkpoint,
        options.worker_state_on_resize,
        options.require_match,
        writer=bundle_writer(options),
    )


def bundle_writer(options: ManagerOptions) -> BundleWriter:
    """Returns what writes the data files."""
    return OpWriter() if options.writer == "tensorflow" else DirectWriter(durable=options.durable)


def common(
    coordinator: Coordinator | None,
    storage: Storage,
    directory: str,
    options: ManagerOptions,
    max_to_keep: Any,
    keep_every_hours: Any,
) -> Common:
    """Returns what the parts of a manager share.

    Raises:
      DirectoryError: The directory exists and cannot be read.
      ConfigurationError: `max_to_keep` or `keep_every_hours` is not a number.
    """
    count, hours = arguments.whole(max_to_keep), arguments.hours(keep_every_hours)
    durable, keep = options.durable, options.keep
    try:
        managed = ManagedCheckpoints(storage, directory, count, hours, durable=durable, keep=keep)
    except OSError as error:
        why = obstacles.find(storage, directory) or f"{explain(error)}."
        raise DirectoryError(f"{directory} cannot be read: {why}") from error
    ownership = ownership_of(storage, directory, durable=durable)
    job = Job(coordinator, directory, options)
    process = OwnProcess()
    return Common(job, storage, directory, managed, options, ownership, process)
