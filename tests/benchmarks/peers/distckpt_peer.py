"""distckpt: blocking ("durable", "plain": without fsync) and asynchronous ("async")."""

from __future__ import annotations

import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf
from serve import Library, serve
from tensorflow_state import State

import distckpt

_OPTIONS: dict[str, dict[str, Any]] = {
    "durable": {},
    "plain": {"durable": False},
    "async": {"enable_async": True},
    "unverified": {"verify_on_restore": False},
}


class Distckpt(Library):
    """One manager for each variant, of one state."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._count = settings["count"]
        self._managers: dict[str, Any] = {}
        self._extra = 0

    def versions(self) -> dict[str, str]:
        return {"distckpt": metadata.version("distckpt"), "TensorFlow": tf.__version__}

    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        self._state = State(state, self._count, fresh)
        self._checkpoint = tf.train.Checkpoint(**self._state.tracked)
        self._folder = folder
        self._done = threading.Event()
        self._options = tf.train.CheckpointOptions(
            experimental_write_callbacks=[lambda _: self._done.set()]
        )
        return self._state.nbytes

    def _manager(self, variant: str) -> Any:
        """Returns the manager of `variant`; "unverified" restores what "async" has saved."""
        if variant not in self._managers:
            folder = self._folder / ("async" if variant == "unverified" else variant)
            self._managers[variant] = distckpt.CheckpointManager(
                self._checkpoint,
                str(folder),
                max_to_keep=self.keep,
                options=distckpt.ManagerOptions(**_OPTIONS[variant]),
            )
        return self._managers[variant]

    def compute(self, times: int) -> None:
        self._state.compute(times)

    def update(self) -> None:
        self._state.update()

    def save(self, variant: str, number: int) -> None:
        self._done.clear()
        self._last = self._manager(variant)
        self._last.save(checkpoint_number=number, options=self._options)

    def wait(self) -> None:
        self._last.sync()

    def landed(self) -> bool:
        return self._done.is_set()

    def restore(self, variant: str, number: int) -> None:
        path = self._manager(variant).restore_or_initialize()
        assert path is not None
        assert path.endswith(f"-{number}"), path

    def first_elements(self) -> list[float]:
        return self._state.first_elements()

    def change(self) -> None:
        self._extra += 1
        setattr(self._checkpoint, f"extra{self._extra}", tf.Variable(0.0))


if __name__ == "__main__":
    serve(Distckpt)
