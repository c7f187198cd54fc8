"""A worker that ends with its save in flight: for tests/multiprocess/test_ending.py.

    ending.py DIRECTORY

From Python 3.12 on no thread can be started once the main thread has come to its end. Older ones
are made to refuse them here.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import tensorflow as tf

import distckpt
import distckpt.manager.checkpoint_manager
from distckpt.core.protocol import share_parts
from distckpt.storage.local import LocalStorage


class Slow(LocalStorage):
    def flush(self, path: str) -> None:
        time.sleep(0.5)
        super().flush(path)

    def write(self, path: str, data: bytes, *, durable: bool) -> None:
        time.sleep(0.5)
        super().write(path, data, durable=durable)


def refuse_threads() -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    print("NO THREADS", flush=True)
    threading.Thread.start = refuse  # type: ignore[method-assign]


def main() -> None:
    (directory,) = sys.argv[1:]
    share_parts.LEAST = 1  # so that a share is written in parts, at the same time
    distckpt.manager.checkpoint_manager.storage_for = lambda path: Slow()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        variables = [tf.Variable(tf.fill([100, 10], float(n))) for n in range(20)]
    options = distckpt.ManagerOptions(enable_async=True, save_deadline=20.0)
    state = tf.train.Checkpoint(variables=variables)
    manager = distckpt.CheckpointManager(state, directory, 3, options=options)
    manager.save()
    manager.sync()
    for variable in variables:
        variable.assign_add(tf.ones([100, 10]))
    manager.save()
    threading._register_atexit(refuse_threads)  # called before threads are waited for


main()
