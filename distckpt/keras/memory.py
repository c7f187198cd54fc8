"""What other callbacks have noted of the training: `EarlyStopping`'s patience, and the like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

Notes = dict[str, Any]  # attributes by name


class Memory:
    """Keeps the attributes that callbacks have changed since the training began.

    Numbers, texts, booleans and None, no arrays. What they were given by the program and did not
    change is not kept: the next start may give them something else.

    Args:
      callbacks: Whose. At the next start there must be as many, of the same kinds and in the same
        order; what is of another kind is left as it is.

    Attributes:
      text: The variable that holds them, as JSON. The chief's is saved.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = callbacks
        self._before: list[Notes] = []
        with tf.device("CPU"):
            self.text = tf.Variable("[]", dtype=tf.string, trainable=False)

    def begin(self, *, recall: bool) -> None:
        """Training begins, and every callback has made its own beginning.

        Args:
          recall: Whether the callbacks get what the variable holds.
        """
        self._before = [_simple(vars(callback)) for callback in self._callbacks]
        kept = json.loads(self.text.numpy()) if recall else []
        for callback, (kind, notes) in zip(self._callbacks, kept, strict=False):
            if kind == type(callback).__name__:
                vars(callback).update(notes)

    def note(self) -> None:
        """Puts into the variable what is to be saved."""
        if not self._callbacks:
            return
        kept = [
            (type(callback).__name__, changes(before, _simple(vars(callback))))
            for callback, before in zip(self._callbacks, self._before, strict=True)
        ]
        self.text.assign(json.dumps(kept))


def changes(before: Notes, now: Notes) -> Notes:
    """Returns what is in `now` and not in `before`."""
    return {name: value for name, value in now.items() if before.get(name, _NOTHING) != value}


_NOTHING = object()


def _simple(attributes: Notes) -> Notes:
    """Returns those attributes that JSON can hold; NumPy's and TensorFlow's numbers as Python's."""
    found = {}
    for name, value in attributes.items():
        if value is None or isinstance(value, bool | int | float | str):
            found[name] = value
        elif getattr(value, "shape", None) == () and hasattr(value, "__array__"):
            found[name] = value.__array__().item()
    return found
