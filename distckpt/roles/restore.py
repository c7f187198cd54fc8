"""Runs one restore: all workers take the same checkpoint, or fall back together.

    chief                                       worker
    1 for each candidate, newest first:
    2   Propose "verify" ──────────────────▶    check the own share of the bytes
    3   gather all verdicts ◀──────────────     Verdict
    4   Propose "restore" ─────────────────▶    checkpoint.restore
    5   gather all verdicts ◀──────────────     Verdict
      a damaged one: note it, next candidate
    6 Outcome ─────────────────────────────▶    same path, or same error

Nothing is restored before every worker has found its share in order, so that a damaged checkpoint
never leaves a state half restored. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from distckpt import events
from distckpt.coordination.base import Coordinator
from distckpt.core import layout, messages, steps
from distckpt.core.delays import Patience
from distckpt.core.messages import Outcome, Proposal, Verdict
from distckpt.errors import (
    CheckpointDamagedError,
    DirectoryNotSharedError,
    DistckptError,
    Failure,
    RestoreError,
    StateMismatchError,
)
from distckpt.roles import host, progress
from distckpt.roles.books import Books
from distckpt.roles.catalog import Catalog
from distckpt.roles.emitter import Emitter
from distckpt.roles.keys import Keys
from distckpt.roles.patient import PatientReader
from distckpt.roles.progress import Hearing, Reporter
from distckpt.roles.verifier import Verifier
from distckpt.roles.waiting import Waiting
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")

VERIFY, RESTORE = "verify", "restore"
# How often to look for a checkpoint that no other process changes while it is being verified.
_ATTEMPTS = 5
# NFS may serve a stale listing for as long as its attribute cache lives.
PATIENCE = 10.0


class RestoreSession:
    """One call of ``restore_or_initialize()`` on one worker.

    Args:
      coordinator: The job.
      storage: Where the directory is.
      directory: Its absolute path or URL.
      books: This worker's list.
      keys: Names of the keys of this call.
      restore: Restores from a checkpoint's name; raises `CheckpointDamagedError` if its files are
        to blame.
      patience: How long to wait for others in each step.
      verify_data: Whether to read all bytes before restoring.
      emitter: Tells the listeners.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: Storage,
        directory: str,
        books: Books,
        keys: Keys,
        restore: Callable[[str], None],
        *,
        patience: Patience,
        verify_data: bool,
        emitter: Emitter | None = None,
    ) -> None:
        self._emit = emitter or Emitter()
        self._began = host.monotonic()
        self._coordinator = coordinator
        self._storage = storage
        self._directory = directory
        self._books = books
        self._keys = keys
        self._restore = restore
        self._patience = patience
        self._reporter = Reporter(coordinator, keys, patience.interval)
        self._hearing = Hearing(keys)
        self._verify_data = verify_data
        reader = PatientReader(storage)
        self._catalog = Catalog(reader, directory)
        self._verifier = Verifier(reader, directory)
        self._cause: BaseException | None = None
        self._number = 0  # of the next step

    def run(self) -> str | None:
        """Restores the newest good checkpoint.

        Returns:
          Its name; None if there is none at all.

        Raises:
          RestoreError: There are checkpoints and none is usable, or the chief cannot read the
            directory.
          DistckptError: As the failing worker's; the same on all.
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
            self._emit(events.Restored, name=name, path=path, seconds=seconds)

    # --- Chief ----------------------------------------------------------------------------------

    def _lead(self) -> Outcome:
        try:
            outcome = self._find()
        except BaseException as error:
            self._tell(Outcome(Failure.from_exception(error, 0)))
            raise
        self._tell(outcome)
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        self._coordinator.publish(self._keys.outcome, messages.to_json(outcome))

    def _find(self) -> Outcome:
        """Finds the newest checkpoint that all can restore; again, if somebody saves meanwhile."""
        refused: list[str] = []
        for _ in range(_ATTEMPTS):
            refused.clear()
            outcome = self._try_all(refused)
            if outcome is not None:
                return outcome
        return self._give_up(refused)

    def _try_all(self, refused: list[str]) -> Outcome | None:
        """Tries all candidates, newest first; adds those that are damaged to `refused`.

        Returns:
          The outcome; None if it is worth while to begin again.
        """
        candidates = self._candidates()
        if not candidates:
            return self._books.standing(None)
        for name in candidates:
            before = self._crc(name)
            verdict = self._try(name)
            if verdict.failure is None:
                self._books.latest = name
                if self._verify_data and before is not None:
                    self._books.verified(name, before)
                return self._books.standing(name)
            if not verdict.damaged:
                return Outcome(verdict.failure)
            refused.append(f"{name}: {verdict.failure.message}")
            if self._crc(name) != before:
                _log.info("Another process has changed %s meanwhile; looking again.", name)
                return None
            _log.warning("%s is not usable: %s", name, verdict.failure.message)
            self._emit(events.FellBack, name=name, reason=verdict.failure.message)
            self._books.quarantine(name, before, verdict.failure.message)
        return self._give_up(refused)

    def _try(self, name: str) -> Verdict:
        """Lets all workers verify and then restore a checkpoint; returns the worst verdict."""
        verdict = self._ask(VERIFY, name)
        return self._ask(RESTORE, name) if verdict.failure is None else verdict

    def _give_up(self, refused: list[str]) -> Outcome:
        text = "".join(f"\n  {line}" for line in refused)
        return Outcome(
            Failure(
                RestoreError.__name__,
                f"None of the {len(refused)} checkpoints in {self._directory} can be restored:"
                f"{text}\nNothing was changed. Repair the files or point to another directory; to "
                "train from the beginning, use an empty one.",
            )
        )

    def _candidates(self) -> list[str]:
        try:
            return self._catalog.candidates(host.now())
        except OSError as error:
            me = self._coordinator.name(self._coordinator.index)
            raise RestoreError(
                f"{me} ({host.name()}) cannot see which checkpoints there are in "
                f"{self._directory}: {error}. Nothing was restored. Check that the file system is "
                "mounted there and that the process may read it, then restore again."
            ) from error

    def _ask(self, task: str, name: str) -> Verdict:
        """Lets all workers do `task` on `name`; returns the worst verdict."""
        number = self._number
        self._number += 1
        proposal = Proposal(task, name, self._directory)
        self._coordinator.publish(self._keys.step(number), messages.to_json(proposal))
        verdicts = [self._judge(proposal)]
        missing = set(range(1, self._coordinator.count))
        self._reporter.enter("waiting for the others", 0, lambda: self._hearing.bytes(missing))
        waiting = self._waiting(f"{task} of {name}", self._patience)
        while missing:
            event = waiting.for_verdict(number, missing)
            if isinstance(event, steps.Lost | steps.TimedOut):
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
            # The chief's own deadline comes first: hear whom it names.
            seconds = self._patience.seconds + self._patience.grace
            patience = dataclasses.replace(self._patience, seconds=seconds)
            waiting = self._waiting("restore_or_initialize()", patience)
            self._reporter.enter("waiting for the chief")
            event = waiting.for_step(number)
            if isinstance(event, steps.Lost | steps.TimedOut):
                return Outcome(event.failure)
            if isinstance(event, Outcome):
                if event.failure is None:
                    self._books.adopt(event)
                return event
            verdict = self._judge(event)
            key = self._keys.verdict(number, self._coordinator.index)
            self._coordinator.publish(key, messages.to_json(verdict))
            number += 1

    # --- Every worker ---------------------------------------------------------------------------

    def _judge(self, proposal: Proposal) -> Verdict:
        """Does what is proposed; returns how it went."""
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
                self._restore(proposal.name)
        except CheckpointDamagedError as error:
            return Verdict(me, Failure.from_exception(error, me), damaged=True)
        except Exception as error:
            self._cause = error
            failure = Failure.from_exception(error, me)
            if not isinstance(error, DistckptError):
                text = f"{self._coordinator.name(me)} could not {proposal.task} {proposal.name}: "
                failure = Failure(RestoreError.__name__, text + str(error), me, failure.trace)
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
