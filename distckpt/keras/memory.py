"""Saves what other callbacks remember of the training, e.g. how long `EarlyStopping` has waited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

Notes = dict[str, Any]  # attributes by name


class Memory:
    """Keeps the attributes that callbacks have changed since the training began.

    Only numbers, strings, booleans and None, no arrays. Attributes that a callback has not changed
    are not kept: the program may give it other arguments at the next start.

    Args:
      callbacks: The callbacks. The next start must give as many, of the same kinds and in the same
        order; a callback of another kind is left unchanged.

    Attributes:
      text: The variable that holds the attributes, as JSON. The chief's is saved.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = callbacks
        self._before: list[Notes] = []
        self.text = text_variable("[]")

    def begin(self, *, recall: bool) -> None:
        """Called when training begins, after every callback's ``on_train_begin``.

        Args:
          recall: Whether the callbacks get back the attributes in the variable.
        """
        self._before = [_simple(vars(callback)) for callback in self._callbacks]
        kept = json.loads(self.text.numpy()) if recall else []
        for callback, (kind, notes) in zip(self._callbacks, kept, strict=False):
            if kind == type(callback).__name__:
                vars(callback).update(notes)

    def note(self) -> None:
        """Stores the attributes in the variable."""
        if not self._callbacks:
            return
        kept = [
            (type(callback).__name__, changes(before, _simple(vars(callback))))
            for callback, before in zip(self._callbacks, self._before, strict=True)
        ]
        self.text.assign(json.dumps(kept))


def text_variable(text: str) -> tf.Variable:
    """Returns a variable with a text; the chief's is saved.

    It is made on another thread, outside any strategy's scope: `MultiWorkerMirroredStrategy` would
    send its value to all workers, which is impossible for a text.
    """

    def make() -> tf.Variable:
        with tf.device("CPU"):
            return tf.Variable(text, dtype=tf.string, trainable=False)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def changes(before: Notes, now: Notes) -> Notes:
    """Returns what is in `now` but not in `before`."""
    return {name: value for name, value in now.items() if before.get(name, _NOTHING) != value}


_NOTHING = object()


def _simple(attributes: Notes) -> Notes:
    """Returns the attributes that JSON can hold; NumPy and TensorFlow numbers as Python's."""
    found = {}
    for name, value in attributes.items():
        if value is None or isinstance(value, bool | int | float | str):
            found[name] = value
        elif getattr(value, "shape", None) == () and hasattr(value, "__array__"):
            found[name] = value.__array__().item()
    return found
