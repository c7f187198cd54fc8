"""The phases of one save on one worker: emitted as events, and kept for the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from distckpt import events
from distckpt.core import layout, units
from distckpt.core.protocol import phases
from distckpt.core.protocol.messages import Report
from distckpt.core.protocol.phases import Phase
from distckpt.core.protocol.write_plan import Plan
from distckpt.errors import DistckptError, SupersededError
from distckpt.listeners.dispatcher import Dispatcher
from distckpt.runtime import host
from distckpt.saving.manifest_builder import Label

# The phases, by the texts of `progress.Reporter`.
PHASES = {
    "waiting for all workers to come": phases.WAIT,
    "reading what needs a collective": phases.READ,
    "opening the save": phases.OPEN,
    "waiting for the chief to open the save": phases.WAIT,
    "comparing": phases.COMPARE,
    "writing": phases.WRITE,
    "flushing": phases.FLUSH,
    "waiting for the other workers": phases.GATHER,
    "merging": phases.MERGE,
}
_log = logging.getLogger("distckpt")
_SILENT = Dispatcher()


class PhaseLog:
    """The phase log of one call of ``save()`` on one worker. It begins when it is constructed.

    Args:
      name: The checkpoint's name.
      label: The program's label for the manifest.
      dispatcher: Tells the listeners.
    """

    def __init__(self, name: str, label: Label, dispatcher: Dispatcher = _SILENT) -> None:
        self._name = name
        self.label = label
        self._emit = dispatcher
        self._began = host.monotonic()
        self._offset = host.now() - self._began
        self._phases = [(phases.HOLD, self._began)]
        self._last = 0
        self._failed = False
        dispatcher(events.SaveStarted, name=name, step=label.step)

    def enter(self, doing: str) -> None:
        """Notes what the worker does now. From any thread, also while a lock is held.

        Args:
          doing: The text of `progress.Reporter`; ignored if it is not a phase.
        """
        phase = PHASES.get(doing)
        if phase is not None and phase != self._phases[-1][0]:
            self._phases.append((phase, host.monotonic()))

    def phases(self) -> tuple[Phase, ...]:
        """Returns the phases so far; the last one ends now."""
        ends = [began for _, began in self._phases[1:]] + [host.monotonic()]
        return tuple(
            Phase(name, round(began + self._offset, 4), round(ended - began, 6))
            for (name, began), ended in zip(self._phases, ends, strict=True)
        )

    def held(self) -> None:
        """Notes that the state is held."""
        self._emit(events.Captured, name=self._name, seconds=self._seconds())
        if self._phases[-1][0] == phases.HOLD:
            self._phases.append((phases.WAIT, host.monotonic()))

    def resumed(self) -> None:
        """Notes that the call of ``save()`` returns."""
        self._emit(events.Resumed, name=self._name, seconds=self._seconds())

    def written(self, report: Report) -> None:
        """Notes that this worker's share is written and flushed."""
        took = {phase.name: phase.seconds for phase in report.phases}
        self._emit(
            events.ShardWritten,
            name=self._name,
            bytes=report.bytes,
            seconds=report.seconds,
            write_seconds=took.get(phases.WRITE, 0.0),
            flush_seconds=took.get(phases.FLUSH, 0.0),
        )

    def answered(self, worker: int) -> None:
        """Notes that the answer of `worker` has arrived."""
        self._last = worker

    def gathered(self) -> None:
        """Notes that all reports have arrived."""
        waited = [began for name, began in self._phases if name == phases.GATHER]
        seconds = host.monotonic() - waited[0] if waited else 0.0
        self._emit(events.Gathered, name=self._name, seconds=seconds, last=self._last)

    def committed(self, plan: Plan) -> None:
        """Notes that the checkpoint is committed."""
        path, step = layout.join(self._emit.directory, self._name), self.label.step
        size, seconds = sum(plan.bytes_per_worker), self._seconds()
        _log.info("Saved %s (step %s, %s) in %.2f s.", path, step, units.size(size), seconds)
        self._emit(
            events.Committed,
            name=self._name,
            path=path,
            step=step,
            bytes=size,
            seconds=seconds,
            metrics=dict(self.label.metrics),
        )

    def pruned(self, names: Sequence[str]) -> None:
        """Notes that retention has deleted `names`."""
        if names:
            self._emit(events.Pruned, names=tuple(names))

    def failed(self, error: BaseException) -> None:
        """Notes that the save has failed. Only the first error counts."""
        if self._failed:
            return
        self._failed = True
        self._emit(
            events.SaveFailed,
            name=self._name,
            error=type(error).__name__,
            message=str(error),
            culprit=error.worker if isinstance(error, DistckptError) else None,
        )
        if isinstance(error, SupersededError):
            self._emit(events.Fenced, by=error.successor)

    def _seconds(self) -> float:
        return host.monotonic() - self._began
