"""One worker of a job that meets before the strategy is made, as users write it."""

import os
import sys

import distckpt

try:
    distckpt.wait_for_workers(deadline=float(sys.argv[2]))
except distckpt.errors.DeadlineExceededError as error:
    sys.exit(f"NOT STARTED: {error}")

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    weights = tf.Variable(tf.ones((4, 4)))
manager = distckpt.CheckpointManager(tf.train.Checkpoint(weights=weights), sys.argv[1], 3)
print("SAVED", os.path.basename(manager.save()), flush=True)
