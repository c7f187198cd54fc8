"""What one worker saves in one save."""

from __future__ import annotations

import dataclasses

from distckpt.core.protocol.moment import NOWHERE, Moment
from distckpt.core.protocol.replica_check import Check
from distckpt.core.protocol.write_plan import Plan
from distckpt.errors import Failure
from distckpt.saving.manifest_builder import Label
from distckpt.state.base import CapturedState, OwnState


@dataclasses.dataclass(frozen=True)
class Subject:
    """A worker's state as it is held for one save, and its description.

    Attributes:
      name: The checkpoint's name.
      directory: The directory, absolute.
      label: The program's label for the manifest.
      plan: This worker's plan.
      state: The held values.
      check: Which of the workers' copies are compared.
      own: What only this worker has; None without a ``worker_checkpoint``.
      moment: The moment of the held state.
      in_background: Whether the save is asynchronous.
    """

    name: str
    directory: str
    label: Label
    plan: Plan
    state: CapturedState
    check: Check = Check()  # noqa: RUF009 - it is frozen
    own: OwnState | None = None
    moment: Moment = NOWHERE
    in_background: bool = False

    def name_in(self, failure: Failure | None) -> Failure | None:
        """Returns a failure with the checkpoint's name in its text, if a later call raises it."""
        if failure is None or not self.in_background or self.name in failure.message:
            return failure
        text = f"save() of {self.name}: {failure.message}"
        return dataclasses.replace(failure, message=text)

    def release(self) -> None:
        """Releases the values."""
        self.state.release()
        if self.own is not None:
            self.own.values.release()
