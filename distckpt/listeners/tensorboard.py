"""`TensorBoard`: the cost of saving, as scalars next to the training's curves."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from distckpt import events
from distckpt.events import Event
from distckpt.runtime import portable

# The metadata that ``tf.summary.scalar`` writes; that function needs the package tensorboard.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class="DATA_CLASS_SCALAR",
)


class TensorBoard:
    """Writes scalars with ``tf.summary``, each worker to its own folder.

    `docs/events.md` lists them. Their step is the training step, as in the manifest.

    Args:
      logdir: TensorBoard's log directory. Worker 1 writes to "worker-1" in it.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        self._logdir = portable.absolute(os.fspath(logdir))
        self._writer: Any = None
        self._steps: dict[str, int] = {}
        self._failures = 0

    def __call__(self, event: Event) -> None:
        """Writes the numbers of the event."""
        if isinstance(event, events.SaveStarted):
            self._steps = {**self._steps, event.name: event.step}
            return
        found = self._scalars(event)
        if not found:
            return
        step = self._steps.get(getattr(event, "name", ""), 0)
        with self._writer_of(event.worker).as_default(step):
            for name, value in found.items():
                tf.summary.write(f"checkpoint/{name}", tf.constant(value), metadata=_SCALAR)
        self._writer.flush()

    def _scalars(self, event: Event) -> dict[str, float]:
        match event:
            case events.Captured():
                return {"seconds_to_hold": event.seconds}
            case events.Resumed():
                return {"seconds_stopped": event.seconds}
            case events.ShardWritten():
                found = {"seconds_to_write": event.seconds, "bytes_written": float(event.bytes)}
                if event.seconds > 0:
                    found["bytes_per_second"] = event.bytes / event.seconds
                return found
            case events.Gathered():
                return {"seconds_to_gather": event.seconds, "last_worker": float(event.last)}
            case events.Committed():
                return {"seconds_to_commit": event.seconds, "bytes": float(event.bytes)}
            case events.SaveFailed():
                self._failures += 1
                return {"failures": float(self._failures)}
        return {}

    def _writer_of(self, worker: int) -> Any:
        if self._writer is None:
            folder = os.path.join(self._logdir, f"worker-{worker}")
            self._writer = tf.summary.create_file_writer(folder)
        return self._writer
