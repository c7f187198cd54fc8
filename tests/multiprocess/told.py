"""A worker of a job that does what it is told, at the address that is its last argument.

    begin DIRECTORY MEETING     makes a manager, after which all else is done by that
    save 5                      sets the value to 5 and saves; tells the checkpoint's name
    restore                     tells the name and the value
    list                        tells the names of the managed checkpoints

In place of what it is to tell, it may tell the kind of an error and its text.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Client

import tensorflow as tf

import distckpt
from distckpt.errors import DistckptError


class Worker:
    """A worker, with its manager."""

    def __init__(self, index, count):
        self.index, self.count = index, count
        self.value = self.manager = None

    def begin(self, directory, meeting):
        """Makes a manager."""
        run_id = os.path.basename(meeting)
        folder = os.path.dirname(meeting)
        coordinator = distckpt.SharedDirectory(folder, run_id, self.index, self.count)
        self.value = tf.Variable(0.0)
        checkpoint = tf.train.Checkpoint(value=self.value, other=tf.Variable(tf.zeros([40])))
        options = distckpt.ManagerOptions(durable=False)
        self.manager = distckpt.CheckpointManager(
            checkpoint, directory, 2, coordinator=coordinator, options=options
        )

    def save(self, number):
        """Saves."""
        self.value.assign(float(number))
        return os.path.basename(self.manager.save())

    def restore(self):
        """Restores."""
        path = self.manager.restore_or_initialize()
        return [path and os.path.basename(path), float(self.value)]

    def list(self):
        """Lists."""
        return [os.path.basename(path) for path in self.manager.checkpoints]


def main() -> None:
    index, count, address = sys.argv[1:]
    worker = Worker(int(index), int(count))
    link = Client(address)
    link.send("ready")
    while True:
        try:
            what, *words = link.recv()
        except EOFError:
            return
        try:
            answer = getattr(worker, what)(*words)
        except DistckptError as error:
            answer = [type(error).__name__, str(error)]
        link.send(answer)


if __name__ == "__main__":
    main()
