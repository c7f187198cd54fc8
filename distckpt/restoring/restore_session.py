"""Runs one restore: all workers restore the same checkpoint, or fall back together.

    chief                                       worker
    1 for each candidate, newest first:
    2   Propose "verify" ──────────────────▶    check its share of the bytes
    3   gather all verdicts ◀──────────────     Verdict
    4   Propose "restore" ─────────────────▶    checkpoint.restore
    5   gather all verdicts ◀──────────────     Verdict
      if damaged: note it, next candidate
    6 Outcome ─────────────────────────────▶    same path, or same error

Nothing is restored before every worker has found its share intact. So a damaged checkpoint never
leaves a state that is half restored. Nothing is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable

from distckpt import events
from distckpt.coordination.base import Coordinator
from distckpt.core import layout
from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.messages import Outcome, Proposal, Verdict
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.directory.catalog import Catalog
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.errors import (
    CheckpointDamagedError,
    DirectoryNotSharedError,
    DistckptError,
    Failure,
    RestoreError,
    StateMismatchError,
)
from distckpt.listeners.dispatcher import Dispatcher
from distckpt.messaging import progress
from distckpt.messaging.keys import Keys
from distckpt.messaging.progress import Hearing, Reporter
from distckpt.messaging.waiting import Waiting
from distckpt.ownership.restore_memory import RestoreMemory
from distckpt.restoring.verifier import Verifier
from distckpt.runtime import host
from distckpt.storage.base import Storage
from distckpt.storage.retrying_reader import RetryingReader

_log = logging.getLogger("distckpt")

VERIFY, RESTORE = "verify", "restore"
# How many times to look, if another process changes a checkpoint during its verification.
_ATTEMPTS = 5
# NFS may serve a stale listing for as long as its attribute cache lives.
PATIENCE = 10.0


class RestoreSession:
    """One call of ``restore_or_initialize()`` on one worker.

    Args:
      coordinator: The job.
      storage: The directory's storage.
      directory: The directory's absolute path or URL.
      managed: This worker's list of managed checkpoints.
      keys: The keys of this call.
      restore: Restores a checkpoint by its name; raises `CheckpointDamagedError` if its files are
        damaged. Its second argument is a function to call with the number of bytes that were read
        since the last call.
      patience: How long to wait for the other workers in each step.
      verify_data: Whether to read all bytes before restoring.
      dispatcher: Tells the listeners.
      memory: Remembers, on the chief of a job that will also save, who owned the directory.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: Storage,
        directory: str,
        managed: ManagedCheckpoints,
        keys: Keys,
        restore: Callable[[str, Callable[[int], None]], None],
        *,
        patience: Patience,
        verify_data: bool,
        dispatcher: Dispatcher | None = None,
        memory: RestoreMemory | None = None,
    ) -> None:
        self._memory = memory
        self._emit = dispatcher or Dispatcher()
        self._began = host.monotonic()
        self._coordinator = coordinator
        self._storage = storage
        self._directory = directory
        self._managed = managed
        self._keys = keys
        self._restore = restore
        self._patience = patience
        self._reporter = Reporter(coordinator, keys, patience.interval)
        self._hearing = Hearing(keys)
        self._verify_data = verify_data
        reader = RetryingReader(storage)
        self._catalog = Catalog(reader, directory)
        self._verifier = Verifier(reader, directory)
        self._cause: BaseException | None = None
        self._number = 0  # of the next step

    def run(self) -> str | None:
        """Restores the newest good checkpoint.

        Returns:
          The checkpoint's name; None if there are no checkpoints.

        Raises:
          RestoreError: There are checkpoints but none is usable, or the chief cannot read the
            directory.
          DistckptError: The error of the worker that failed; the same on all.
        """
        if self._coordinator.count == 1:
            outcome = self._lead()
        else:
            self._coordinator.publish(self._keys.ready(self._coordinator.index), "")
            with progress.telling(self._reporter, self._patience.interval):
                outcome = self._lead() if self._coordinator.is_chief else self._follow()
        self._emit_end(outcome)
        if outcome.failure is not None:
            me = self._coordinator.index
            raise outcome.failure.to_error(me) from self._cause
        return outcome.name

    def _emit_end(self, outcome: Outcome) -> None:
        failure, name = outcome.failure, outcome.name
        if failure is not None:
            self._emit(
                events.RestoreFailed,
                error=failure.kind,
                message=failure.message,
                culprit=failure.worker,
            )
        elif name is not None:
            seconds = host.monotonic() - self._began
            path = layout.join(self._directory, name)
            _log.info("Restored %s in %.2f s.", path, seconds)
            self._emit(events.Restored, name=name, path=path, seconds=seconds)

    # --- Chief ----------------------------------------------------------------------------------

    def _lead(self) -> Outcome:
        try:
            outcome = self._find()
            if self._memory is not None and outcome.failure is None:
                self._memory.restored()
        except BaseException as error:
            self._tell(Outcome(Failure.from_exception(error, 0)))
            raise
        self._tell(outcome)
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        self._coordinator.publish(self._keys.outcome, messages.to_json(outcome))

    def _find(self) -> Outcome:
        """Restores the newest usable checkpoint; looks again if another process saves meanwhile."""
        refused: list[str] = []
        for _ in range(_ATTEMPTS):
            refused.clear()
            outcome = self._try_all(refused)
            if outcome is not None:
                return outcome
        return self._give_up(refused)

    def _try_all(self, refused: list[str]) -> Outcome | None:
        """Tries all candidates, newest first; adds the damaged ones to `refused`.

        Returns:
          The outcome; None if another process has changed a candidate: then begin again.
        """
        candidates = self._candidates()
        if not candidates:
            return self._managed.standing(None)
        for name in candidates:
            before = self._crc(name)
            verdict = self._ask(VERIFY, name)
            if verdict.failure is None:
                verdict = self._ask(RESTORE, name)
            if verdict.failure is None:
                self._managed.restored(name)
                self._say_if_set_back(name)
                if self._verify_data and before is not None:
                    self._managed.verified(name, before)
                return self._managed.standing(name)
            if not verdict.damaged:
                return Outcome(verdict.failure)
            refused.append(f"{name}: {verdict.failure.message}")
            if self._crc(name) != before:
                _log.info("Another process has changed %s meanwhile; looking again.", name)
                return None
            _log.warning("%s is not usable: %s", name, verdict.failure.message)
            self._emit(events.FellBack, name=name, reason=verdict.failure.message)
            self._managed.quarantine(name, before, verdict.failure.message)
        return self._give_up(refused)

    def _say_if_set_back(self, restored: str) -> None:
        """Warns if somebody may have changed TensorFlow's file to roll back."""
        with contextlib.suppress(OSError):  # the restore has succeeded
            older = self._catalog.set_back(restored)
            if older is not None:
                _log.warning(
                    "%s names %s as the newest checkpoint, but %s was committed after it, and is "
                    "restored: distckpt goes by the manifests. If somebody has changed that file "
                    "to go back, stop this job and run: distckpt rollback %s %s",
                    layout.join(self._directory, layout.POINTER_FILE),
                    older,
                    restored,
                    self._directory,
                    older,
                )

    def _give_up(self, refused: list[str]) -> Outcome:
        count, here = len(refused), self._directory
        if count == 1:
            text = f"The checkpoint in {here} cannot be restored:"
        else:
            text = f"None of the {count} checkpoints in {here} can be restored:"
        text += "".join(f"\n  {line}" for line in refused)
        text += (
            "\nNothing was changed. Repair the files or point to another directory; to train from "
            "the beginning, use an empty one."
        )
        return Outcome(Failure(RestoreError.__name__, text))

    def _candidates(self) -> list[str]:
        try:
            if self._memory is not None:
                self._memory.look()  # first, since a later owner may save what is not listed
            return self._catalog.candidates(host.now())
        except OSError as error:
            me = self._coordinator.name(self._coordinator.index)
            raise RestoreError(
                f"{me} ({host.name()}) cannot list the checkpoints in {self._directory}: {error}. "
                "Nothing was restored. Check that the file system is mounted there and that the "
                "process may read it, then restore again."
            ) from error

    def _ask(self, task: str, name: str) -> Verdict:
        """Lets all workers do `task` on `name`; returns the worst verdict."""
        number = self._number
        self._number += 1
        proposal = Proposal(task, name, self._directory)
        self._coordinator.publish(self._keys.step(number), messages.to_json(proposal))
        verdicts = [self._judge(proposal)]
        missing = set(range(1, self._coordinator.count))
        self._reporter.enter(
            "waiting for the other workers", 0, lambda: self._hearing.bytes(missing)
        )
        waiting = self._waiting(f"restore_or_initialize() ({task} {name})", self._patience)
        while missing:
            event = waiting.for_verdict(number, missing)
            if isinstance(event, actions.Lost | actions.TimedOut):
                return Verdict(0, event.failure)
            missing.discard(event.worker)
            verdicts.append(event)
        bad = [v for v in verdicts if v.failure is not None]
        return min(bad, key=lambda v: v.damaged) if bad else verdicts[0]

    def _waiting(self, what: str, patience: Patience) -> Waiting:
        return Waiting(
            self._coordinator,
            self._keys,
            what,
            patience,
            hearing=self._hearing,
            heard=self._reporter.news,
        )

    def _crc(self, name: str) -> int | None:
        try:
            return self._catalog.index_crc32c(name)
        except CheckpointDamagedError:
            return None

    # --- Worker ---------------------------------------------------------------------------------

    def _follow(self) -> Outcome:
        number = 0
        while True:
            # The chief's own deadline comes first, and its error names the missing worker.
            seconds = self._patience.seconds + self._patience.grace
            patience = dataclasses.replace(self._patience, seconds=seconds)
            waiting = self._waiting("restore_or_initialize()", patience)
            self._reporter.enter("waiting for the chief")
            event = waiting.for_step(number)
            if isinstance(event, actions.Lost | actions.TimedOut):
                return Outcome(event.failure)
            if isinstance(event, Outcome):
                if event.failure is None:
                    self._managed.adopt(event)
                return event
            verdict = self._judge(event)
            key = self._keys.verdict(number, self._coordinator.index)
            self._coordinator.publish(key, messages.to_json(verdict))
            number += 1

    # --- Every worker ---------------------------------------------------------------------------

    def _judge(self, proposal: Proposal) -> Verdict:
        """Does what is proposed; returns the verdict."""
        me = self._coordinator.index
        try:
            if proposal.task == VERIFY:
                self._check_directory(proposal)
                count = self._coordinator.count
                self._verifier.verify(
                    proposal.name, me, count, data=self._verify_data, progress=self._reporter
                )
            else:
                self._reporter.enter("restoring")
                self._restore(proposal.name, self._reporter.add)
        except CheckpointDamagedError as error:
            return Verdict(me, Failure.from_exception(error, me), damaged=True)
        except Exception as error:
            self._cause = error
            failure = Failure.from_exception(error, me)
            if not isinstance(error, DistckptError):
                text = f"{self._coordinator.name(me)} could not {proposal.task} {proposal.name}: "
                text += str(error)
                if proposal.task != VERIFY:
                    text += (
                        "\nSome variables may have been restored, and variables that are created "
                        "later still may be: do not train with this state."
                    )
                failure = Failure(RestoreError.__name__, text, me, failure.trace)
            return Verdict(me, failure)
        return Verdict(me)

    def _check_directory(self, proposal: Proposal) -> None:
        if proposal.directory != self._directory:
            raise StateMismatchError(
                f"{self._coordinator.name(self._coordinator.index)} restores from "
                f"{self._directory!r} and the chief from {proposal.directory!r}. Give every "
                "worker the same directory."
            )
        path = layout.join(self._directory, layout.index_name(proposal.name))
        deadline = host.monotonic() + PATIENCE
        while not self._storage.exists(path):
            if host.monotonic() > deadline:
                raise DirectoryNotSharedError(
                    f"{self._coordinator.name(self._coordinator.index)} ({host.name()}) "
                    f"does not see {path}, which the chief sees. Mount one shared file system "
                    "there on every host."
                )
            self._storage.list(self._directory)  # makes NFS look again
            host.sleep(0.1)
