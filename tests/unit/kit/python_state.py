"""State that is not in variables."""

from __future__ import annotations

import json

import tensorflow as tf


class Settings(tf.train.experimental.PythonState):
    """Values that a checkpoint holds as JSON."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def serialize(self):
        return json.dumps(self.values)

    def deserialize(self, text):
        self.values = json.loads(text)
