"""What one worker goes through in one save: as events while it happens, as phases afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from distckpt import events
from distckpt.core import layout, phases
from distckpt.core.messages import Report
from distckpt.core.phases import Phase
from distckpt.core.plan import Plan
from distckpt.errors import DistckptError, SupersededError
from distckpt.roles import host
from distckpt.roles.emitter import Emitter
from distckpt.roles.recorder import Label

# The phases by what `progress.Reporter` calls them.
PHASES = {
    "waiting for all to come": phases.WAIT,
    "reading what takes a collective": phases.READ,
    "opening the save": phases.OPEN,
    "waiting for the chief to open the save": phases.WAIT,
    "comparing": phases.COMPARE,
    "writing": phases.WRITE,
    "flushing": phases.FLUSH,
    "waiting for the others": phases.GATHER,
    "merging": phases.MERGE,
}
_SILENT = Emitter()


class Story:
    """The story of one call of ``save()`` on one worker. It begins with the construction.

    Args:
      name: The checkpoint's name.
      label: What the manifest will say of it.
      emitter: Tells the listeners.
    """

    def __init__(self, name: str, label: Label, emitter: Emitter = _SILENT) -> None:
        self._name = name
        self.label = label
        self._emit = emitter
        self._began = host.monotonic()
        self._offset = host.now() - self._began
        self._phases = [(phases.HOLD, self._began)]
        self._last = 0
        self._failed = False
        emitter(events.SaveStarted, name=name, step=label.step)

    def enter(self, doing: str) -> None:
        """The worker does something else now; from any thread, also with a lock held.

        Args:
          doing: As `progress.Reporter` calls it; what is no phase is passed over.
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
        """The state is held."""
        self._emit(events.Captured, name=self._name, seconds=self._seconds())
        if self._phases[-1][0] == phases.HOLD:
            self._phases.append((phases.WAIT, host.monotonic()))

    def resumed(self) -> None:
        """The call of ``save()`` returns."""
        self._emit(events.Resumed, name=self._name, seconds=self._seconds())

    def written(self, report: Report) -> None:
        """This worker's share is written and flushed."""
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
        """The answer of `worker` has come."""
        self._last = worker

    def gathered(self) -> None:
        """All reports are there."""
        waited = [began for name, began in self._phases if name == phases.GATHER]
        seconds = host.monotonic() - waited[0] if waited else 0.0
        self._emit(events.Gathered, name=self._name, seconds=seconds, last=self._last)

    def committed(self, plan: Plan) -> None:
        """The checkpoint is committed."""
        self._emit(
            events.Committed,
            name=self._name,
            path=layout.join(self._emit.directory, self._name),
            step=self.label.step,
            bytes=sum(plan.bytes_per_worker),
            seconds=self._seconds(),
            metrics=dict(self.label.metrics),
        )

    def pruned(self, names: Sequence[str]) -> None:
        """Retention has deleted `names`."""
        if names:
            self._emit(events.Pruned, names=tuple(names))

    def failed(self, error: BaseException) -> None:
        """The save has ended with an error. Only the first is told."""
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
