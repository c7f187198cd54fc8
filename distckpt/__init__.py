"""Sharded, committed checkpoints for `tf.distribute`: a drop-in for `tf.train.CheckpointManager`.

    manager = distckpt.CheckpointManager(checkpoint, directory, max_to_keep=3)

Names are imported when they are first used (PEP 562), because TensorFlow takes seconds to import,
and code that only looks at a directory does not need it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distckpt import errors as errors
    from distckpt import events as events
    from distckpt import exit_codes as exit_codes
    from distckpt import keep as keep
    from distckpt import keras as keras
    from distckpt import listeners as listeners
    from distckpt import policies as policies
    from distckpt.coordination.rendezvous import wait_for_workers as wait_for_workers
    from distckpt.coordination.shared_directory import SharedDirectory as SharedDirectory
    from distckpt.core.worker_states import WorkerStates as WorkerStates
    from distckpt.data.indexed_input import IndexedInput as IndexedInput
    from distckpt.data.worker_input import WorkerInput as WorkerInput
    from distckpt.manager.checkpoint_manager import CheckpointManager as CheckpointManager
    from distckpt.options import ManagerOptions as ManagerOptions
    from distckpt.preemption.handler import handle_preemption as handle_preemption
    from distckpt.reading.reader import Reader as Reader
    from distckpt.reading.reader import checkpoints_iterator as checkpoints_iterator

_WHERE = {
    "CheckpointManager": "distckpt.manager.checkpoint_manager",
    "IndexedInput": "distckpt.data.indexed_input",
    "ManagerOptions": "distckpt.options",
    "Reader": "distckpt.reading.reader",
    "SharedDirectory": "distckpt.coordination.shared_directory",
    "WorkerInput": "distckpt.data.worker_input",
    "WorkerStates": "distckpt.core.worker_states",
    "checkpoints_iterator": "distckpt.reading.reader",
    "errors": "distckpt.errors",
    "events": "distckpt.events",
    "exit_codes": "distckpt.exit_codes",
    "keep": "distckpt.keep",
    "handle_preemption": "distckpt.preemption.handler",
    "keras": "distckpt.keras",
    "listeners": "distckpt.listeners",
    "policies": "distckpt.policies",
    "wait_for_workers": "distckpt.coordination.rendezvous",
}
_MODULES = ("errors", "events", "exit_codes", "keep", "keras", "listeners", "policies")

if os.environ.get("DISTCKPT_EXIT_CODES") == "1":  # a worker that `distckpt launch` started in a pod
    importlib.import_module("distckpt.exit_codes").install()

__all__ = [
    "CheckpointManager",
    "IndexedInput",
    "ManagerOptions",
    "Reader",
    "SharedDirectory",
    "WorkerInput",
    "WorkerStates",
    "checkpoints_iterator",
    "errors",
    "events",
    "exit_codes",
    "handle_preemption",
    "keep",
    "keras",
    "listeners",
    "policies",
    "wait_for_workers",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("distckpt.runtime.version").VERSION
    if name not in _WHERE:
        raise AttributeError(f"module 'distckpt' has no attribute {name!r}")
    try:
        module = importlib.import_module(_WHERE[name])
    except ModuleNotFoundError as error:
        version = importlib.import_module("distckpt.runtime.tf_version")
        raise version.explained(error, f"distckpt.{name}") from None
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
