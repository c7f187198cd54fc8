"""`Prometheus`: metrics for a monitoring system, by HTTP or in a file.

It needs ``prometheus-client``: ``pip install "distckpt[prometheus]"``.
"""

from __future__ import annotations

import os
from typing import Any

from distckpt import events
from distckpt.errors import ConfigurationError
from distckpt.events import Event
from distckpt.listeners.jsonl import worker_path

_LABELS = ("worker", "directory")
# In seconds: from holding a small state to writing to a distant directory.
_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1200.0)


class Prometheus:
    """Collects metrics for Prometheus. `docs/events.md` lists them.

    Args:
      port: The port of the HTTP endpoint, 0 for any free port. Workers on one machine need
        different ports. Not with `textfile`.
      address: Where the endpoint listens. Default: only this machine; in a pod use "0.0.0.0".
      textfile: Instead of an endpoint, a file for node_exporter's textfile collector; its name
        ends with ".prom". It is replaced atomically after each event. ``{worker}`` in the path
        stands for the worker's index.

    Attributes:
      port: The endpoint's port; None without one.

    Raises:
      ConfigurationError: The package is missing, the port is taken, or neither or both of `port`
        and `textfile` are given.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        address: str = "127.0.0.1",
        textfile: str | os.PathLike[str] | None = None,
    ) -> None:
        if (port is None) == (textfile is None):
            raise ConfigurationError("Prometheus takes either port or textfile.")
        self._client = _client()
        self._registry = self._client.CollectorRegistry()
        self._metrics = _Metrics(self._client, self._registry)
        self._textfile = worker_path(textfile) if textfile is not None else None
        self._server: Any = None
        self.port: int | None = None
        if port is not None:
            self._server = self._serve(port, address)
            self.port = self._server.server_port

    def __call__(self, event: Event) -> None:
        """Updates the metrics."""
        self._metrics.update(event)
        if self._textfile is not None:
            path = self._textfile.replace("{worker}", str(event.worker))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._client.write_to_textfile(path, self._registry)

    def close(self) -> None:
        """Closes the endpoint."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _serve(self, port: int, address: str) -> Any:
        try:
            server, _ = self._client.start_http_server(port, address, self._registry)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"Prometheus cannot listen on {address}:{port} ({error}). Give each worker of a "
                "machine its own port, 0 for any, or a textfile."
            ) from error
        return server


class _Metrics:
    """The metrics, and how each event changes them."""

    def __init__(self, client: Any, registry: Any) -> None:
        def counter(name: str, text: str, *labels: str) -> Any:
            return client.Counter(name, text, (*_LABELS, *labels), registry=registry)

        def gauge(name: str, text: str) -> Any:
            return client.Gauge(name, text, _LABELS, registry=registry)

        def histogram(name: str, text: str) -> Any:
            return client.Histogram(name, text, _LABELS, registry=registry, buckets=_BUCKETS)

        self.saves = counter(
            "distckpt_saves", "Saves by outcome: committed, failed, skipped.", "outcome"
        )
        self.restores = counter(
            "distckpt_restores", "Restores by outcome: restored, failed.", "outcome"
        )
        self.fallbacks = counter("distckpt_fallbacks", "Damaged checkpoints that were skipped.")
        self.pruned = counter("distckpt_pruned_checkpoints", "Checkpoints that were deleted.")
        self.preemptions = counter("distckpt_preemptions", "How often this worker was preempted.")
        self.fenced = gauge("distckpt_fenced", "1 if another job has taken over the directory.")
        self.committed_at = gauge(
            "distckpt_last_commit_timestamp_seconds", "When the newest checkpoint was committed."
        )
        self.step = gauge("distckpt_last_commit_step", "The step of the newest checkpoint.")
        self.bytes = gauge("distckpt_checkpoint_bytes", "Size of the newest checkpoint.")
        self.last_worker = gauge(
            "distckpt_last_worker", "The worker that was last to write its share. Chief only."
        )
        self.stopped = histogram(
            "distckpt_training_stopped_seconds", "How long a save has stopped training."
        )
        self.held = histogram("distckpt_hold_seconds", "How long it took to hold the state.")
        self.save = histogram("distckpt_save_seconds", "From the call of save() to the commit.")
        self.shard = histogram(
            "distckpt_shard_write_seconds", "How long this worker has written, flushing included."
        )
        self.gather = histogram(
            "distckpt_gather_seconds", "How long the chief waited for the other workers' shards."
        )
        self.written = counter("distckpt_shard_written_bytes", "Bytes this worker has written.")

    def update(self, event: Event) -> None:
        """Updates the metrics by an event."""
        at = {"worker": str(event.worker), "directory": event.directory}
        match event:
            case events.Captured():
                self.held.labels(**at).observe(event.seconds)
            case events.Resumed():
                self.stopped.labels(**at).observe(event.seconds)
            case events.SaveSkipped():
                self.saves.labels(**at, outcome="skipped").inc()
            case events.ShardWritten():
                self.shard.labels(**at).observe(event.seconds)
                self.written.labels(**at).inc(event.bytes)
            case events.Gathered():
                self.gather.labels(**at).observe(event.seconds)
                self.last_worker.labels(**at).set(event.last)
            case events.Committed():
                self._committed(event, at)
            case events.Pruned():
                self.pruned.labels(**at).inc(len(event.names))
            case events.SaveFailed():
                self.saves.labels(**at, outcome="failed").inc()
            case events.Fenced():
                self.fenced.labels(**at).set(1)
            case events.Restored():
                self.restores.labels(**at, outcome="restored").inc()
            case events.FellBack():
                self.fallbacks.labels(**at).inc()
            case events.RestoreFailed():
                self.restores.labels(**at, outcome="failed").inc()
            case events.Preempted():
                self.preemptions.labels(**at).inc()

    def _committed(self, event: events.Committed, at: dict[str, str]) -> None:
        self.saves.labels(**at, outcome="committed").inc()
        self.committed_at.labels(**at).set(event.time)
        self.step.labels(**at).set(event.step)
        self.bytes.labels(**at).set(event.bytes)
        self.save.labels(**at).observe(event.seconds)


def _client() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigurationError(
            'Prometheus needs the package prometheus-client: pip install "distckpt[prometheus]".'
        ) from error
    return prometheus_client
