"""One worker: restores, then saves a few times, with the very roles that the manager wires."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distckpt.core import layout
from distckpt.core.protocol.chief_save import ChiefSave
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.protocol.worker_save import WorkerSave
from distckpt.directory.catalog import Catalog
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.errors import (
    CommitUnknownError,
    ConfigurationError,
    DirectoryError,
    DistckptError,
    SupersededError,
    WorkerLostError,
)
from distckpt.messaging.keys import Keys
from distckpt.ownership.fencing import Ownership
from distckpt.restoring.restore_session import RestoreSession
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject
from distckpt.state.base import OwnState

from . import state
from .network import SimulatedCoordinator, SimulatedJob
from .oracle import RUN
from .storage import SimulatedStorage
from .world import Task, World

if TYPE_CHECKING:
    from .settings import Settings

# Errors after which a program cannot continue.
FATAL = (WorkerLostError, CommitUnknownError, SupersededError, ConfigurationError)


class Traced:
    """A machine of the protocol that writes down where it has been."""

    def __init__(self, machine: ChiefSave | WorkerSave, world: World) -> None:
        self._machine = machine
        self._world = world
        self._role = type(machine).__name__

    def start(self):
        """As the machine itself."""
        return self._machine.start()

    def on(self, event):
        """See the machine's."""
        before = type(self._machine._last).__name__
        self._world.visited[self._role, before, type(event).__name__] += 1
        return self._machine.on(event)


class Process:
    """A worker's process.

    Args:
      world: The world.
      job: Its job.
      index: Its index there.
      storage: Its view of the disk.
      saves: How many times it saves.
      settings: As the run is set up.
      began: Called when a call begins.
      heard: Called when a call has ended: with this process, how, and after which time.
    """

    def __init__(
        self,
        world: World,
        job: SimulatedJob,
        index: int,
        storage: SimulatedStorage,
        saves: int,
        settings: Settings,
        began: Callable[[Process, str], None],
        heard: Callable[[Process, str, object, float], None],
    ) -> None:
        self.job = job
        self.index = index
        self.storage = storage
        self.name = f"{job.number}/{index}"
        self.host = f"host-{index}"
        self.pid = 100 * job.number + index
        self.tokens = 0
        self.struck = False
        self.ended = False
        self.failed = False
        self.task: Task | None = None
        self._world = world
        self._saves = saves
        self._settings = settings
        self._began = began
        self._heard = heard
        self.restored: int | None = None
        self._coordinator = SimulatedCoordinator(world, job, index)
        self.ownership: Ownership | None = None

    @property
    def term(self) -> int:
        """The term that it has taken, or 0."""
        return (self.ownership.term or 0) if self.ownership else 0

    def work(self) -> None:
        """What the program does."""
        try:
            self._call("construct", self._wire)
            number = self._call("restore", self._restore)
            for call in range(self._saves):
                self._call("save", lambda call=call: self._save(call, number + 1 + call))
        except DistckptError:
            self.failed = True
            self.job.lose(self.index, "it has ended with an error", 0.0)
        else:
            self.job.leave(self.index)

    def _wire(self) -> None:
        durable, keep = self._settings.durable, self._settings.max_to_keep
        self.ownership = Ownership(self.storage, RUN, durable=durable)
        try:
            self.managed = ManagedCheckpoints(
                self.storage, RUN, keep, self._settings.hours, durable=durable
            )
        except OSError as error:  # as the manager does
            raise DirectoryError(f"worker {self.index} cannot read {RUN}: {error}") from error
        self._committer = None
        if self.index == 0:
            pruner = Pruner(self.storage, RUN, self.ownership, durable=durable, threads=1)
            self.managed.delete = pruner.prune
            self._committer = Committer(
                self.storage,
                RUN,
                self.ownership,
                state.SimulatedMerger(self.storage),
                durable=durable,
                refresh=self.managed.refresh,
            )

    def _call(self, kind: str, call: Callable[[], object]):
        """Does a call of the manager; an error that a program survives is only written down."""
        assert self.task is not None
        task = self.task
        began = self._world.now - task.paused - task.lingered
        result: object
        self._began(self, kind)
        try:
            result = call()
        except DistckptError as error:
            result = error
        if self._world.told is not None:
            self._world.tell(self.name, f"{kind}() ended: {result!r}")
        self._heard(self, kind, result, self._world.now - task.paused - task.lingered - began)
        if isinstance(result, DistckptError) and (isinstance(result, FATAL) or kind != "save"):
            raise result
        return result

    def _restore(self) -> int:
        """Returns the number in the name of the restored checkpoint."""
        session = RestoreSession(
            self._coordinator,
            self.storage,
            RUN,
            self.managed,
            Keys("sim", "call", 0),
            self._take,
            patience=Patience(self._settings.deadline, self._settings.slow_factor),
            verify_data=True,
            memory=self.ownership.memory if self.index == 0 and self.ownership else None,
        )
        name = session.run()
        return (layout.split_number(name)[1] or 0) if name else 0

    def _take(self, name: str, count: Callable[[int], None]) -> None:
        number = state.restore(self.storage, RUN, name)
        if self._settings.own:
            manifest = Catalog(self.storage, RUN).manifest(name)
            states = manifest.worker_states if manifest is not None else ()
            if len(states) == self.job.count:
                prefix = states[self.index].prefix
                state.restore_own(self.storage, RUN, prefix, number, self.index)
        self.restored = number

    def _own(self, content: int) -> OwnState | None:
        if not self._settings.own:
            return None
        return state.own_state(self.storage, content, self.index)

    def _save(self, call: int, number: int) -> str:
        """Returns the attempt that was committed."""
        name = f"ckpt-{number % self._settings.names}" if self._settings.names else f"ckpt-{number}"
        content = 20 * self.job.number + call
        workers = self.job.count
        plan = state.plan_for(workers, collective=self._settings.collective)
        subject = Subject(
            name=name,
            directory=RUN,
            label=Label(content),
            plan=plan,
            state=state.SimulatedState(self.storage, lambda: content, self.job, self.index, call),
            own=self._own(content),
        )
        log = PhaseLog(name, subject.label)
        is_chief = self._committer is not None
        session = SaveSession(
            self._coordinator,
            Keys("sim", "save", call),
            subject,
            ShardWriter(
                self.storage, RUN, self.index, workers, durable=self._settings.durable, threads=1
            ),
            ChiefPart(self._committer, self.managed, subject, log) if is_chief else None,
            patience=Patience(self._settings.deadline, self._settings.slow_factor),
            phase_log=log,
        )
        session._machine = Traced(session._machine, self._world)
        session.hold()
        outcome = session.run()
        if self.index:
            self.managed.adopt(outcome)
        assert session._opening is not None
        return session._opening.attempt
