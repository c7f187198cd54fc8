"""The chief's part of one save: it opens, merges, commits and prunes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from distckpt.core.protocol import actions
from distckpt.core.protocol.messages import Opening, Outcome, Report
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.errors import Failure
from distckpt.runtime import host
from distckpt.saving.committer import Committer
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.subject import Subject

_log = logging.getLogger("distckpt")


class ChiefPart:
    """What only the chief does in a save.

    Args:
      committer: Changes the directory.
      managed: The list of managed checkpoints.
      subject: What is saved.
      phase_log: Notes the phases, and emits events.

    Attributes:
      opening: The opening; None before the chief opens the save.
      committing: Whether the chief has begun to commit.
      committed: Whether the chief has committed.
    """

    def __init__(
        self,
        committer: Committer,
        managed: ManagedCheckpoints,
        subject: Subject,
        phase_log: PhaseLog,
    ) -> None:
        self._committer = committer
        self._managed = managed
        self._subject = subject
        self._phase_log = phase_log
        self._started = host.monotonic()
        self.opening: Opening | None = None
        self.committing = False
        self.committed = False

    def perform(self, action: actions.Action) -> actions.Event | None:
        """Performs an action that only the chief has."""
        match action:
            case actions.Open():
                return actions.Opened(self.open())
            case actions.Merge(reports):
                self.merge(reports)
                return actions.Merged()
            case actions.Commit(reports):
                self.commit(reports)
                return actions.Committed()
            case actions.Prune():
                self.prune()
                return actions.Pruned()
        return None

    def open(self) -> Opening:
        """Opens the save."""
        subject = self._subject
        opening = self._committer.open(subject.name, subject.plan.fingerprint)
        self.opening = dataclasses.replace(opening, moment=subject.moment)
        self._managed.begins(subject.name)
        return self.opening

    def merge(self, reports: tuple[Report, ...]) -> None:
        """Makes the index of the checkpoint."""
        self._phase_log.gathered()
        self._committer.merge(self._opened, reports)

    def commit(self, reports: tuple[Report, ...]) -> None:
        """Commits the checkpoint, and adds it to the list."""
        seconds = host.monotonic() - self._started
        # The chief has gone through more phases since its own report.
        mine = dataclasses.replace(reports[0], phases=self._phase_log.phases())
        self.committing = True
        manifest = self._committer.commit(
            self._opened, (mine, *reports[1:]), self._subject.label, seconds
        )
        self.committed = True
        self._afterwards(lambda: self._managed.record(manifest, self._folder))
        self._afterwards(lambda: self._phase_log.committed(self._subject.plan))

    def prune(self) -> None:
        """Deletes what retention does not keep, and removes the pending folder."""
        self._afterwards(lambda: self._phase_log.pruned(self._managed.prune(self._folder)))
        self._afterwards(self.close)

    def close(self) -> None:
        """Removes the pending folder, and everything from a failed save."""
        if self.opening is not None:
            self._committer.close(self.opening)

    def outcome(self, failure: Failure | None, warning: str) -> Outcome:
        """Returns the outcome, for all workers."""
        if failure is not None:
            return Outcome(failure)
        return dataclasses.replace(self._managed.outcome(self._subject.name), warning=warning)

    @property
    def _opened(self) -> Opening:
        assert self.opening is not None
        return self.opening

    @property
    def _folder(self) -> str:
        return self._committer.folder(self._opened)

    def _afterwards(self, step: Callable[[], None]) -> None:
        """Does something after the commit. Errors are logged: the save has succeeded."""
        try:
            step()
        except Exception:
            _log.exception("%s is committed, but a later step has failed.", self._subject.name)
