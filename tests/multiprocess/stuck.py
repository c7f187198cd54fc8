"""A worker whose main thread never comes back to Python: for tests/multiprocess/test_stuck.py.

stuck.py DIRECTORY queue | sleep | log
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time

import tensorflow as tf

import distckpt

directory, mode = sys.argv[1:]
logging.basicConfig(level=logging.WARNING)
state = tf.train.Checkpoint(value=tf.Variable(1.0))
manager = distckpt.CheckpointManager(state, directory, 2)
handler = distckpt.handle_preemption(manager, grace_seconds=2.0)
manager.save()
queue = tf.queue.FIFOQueue(1, tf.float32)
libc = ctypes.CDLL(None)
print("STUCK", flush=True)
if mode == "log":  # as when it writes to a pipe that nobody reads
    logging.getLogger().handlers[0].acquire()
if mode == "sleep":
    while True:
        libc.sleep(1000)  # cut short by each signal; Python is back for a moment
queue.dequeue()
time.sleep(1000)
