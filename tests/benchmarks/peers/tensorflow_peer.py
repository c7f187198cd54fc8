"""TensorFlow's own: `Checkpoint.write` ("sync"); `CheckpointManager`, enable_async ("async")."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import tensorflow as tf
from serve import Library, serve
from tensorflow_state import State


class TensorFlow(Library):
    """TensorFlow without distckpt. Nothing is flushed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._count = settings["count"]
        self._extra = 0

    def versions(self) -> dict[str, str]:
        import keras

        return {"TensorFlow": tf.__version__, "Keras": keras.__version__}

    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        self._state = State(state, self._count, fresh)
        self._checkpoint = tf.train.Checkpoint(**self._state.tracked)
        self._folder = folder
        self._manager: Any = None
        self._done = threading.Event()
        self._options = tf.train.CheckpointOptions(
            enable_async=True, experimental_write_callbacks=[lambda _: self._done.set()]
        )
        return self._state.nbytes

    def compute(self, times: int) -> None:
        self._state.compute(times)

    def update(self) -> None:
        self._state.update()

    def save(self, variant: str, number: int) -> None:
        if variant == "sync":
            self._checkpoint.write(str(self._folder / variant / f"ckpt-{number}"))
            self._done.set()
        else:
            self._done.clear()
            if self._manager is None:
                self._manager = tf.train.CheckpointManager(
                    self._checkpoint, str(self._folder / variant), max_to_keep=self.keep
                )
            self._manager.save(checkpoint_number=number, options=self._options)

    def wait(self) -> None:
        if self._manager is not None:
            self._manager.sync()

    def landed(self) -> bool:
        return self._done.is_set()

    def restore(self, variant: str, number: int) -> None:
        path = str(self._folder / variant / f"ckpt-{number}")
        self._checkpoint.read(path).assert_existing_objects_matched()

    def first_elements(self) -> list[float]:
        return self._state.first_elements()

    def change(self) -> None:
        self._extra += 1
        setattr(self._checkpoint, f"extra{self._extra}", tf.Variable(0.0))


if __name__ == "__main__":
    serve(TensorFlow)
