"""The operations of a manager that all workers do together, one at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from distckpt import arguments
from distckpt.calls.save_calls import SaveCalls
from distckpt.calls.save_request import Condition, Request
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.calls.thread_turns import ThreadTurns
from distckpt.events import SaveSkipped
from distckpt.manager.restore_wiring import Restoring
from distckpt.manager.save_wiring import Saving
from distckpt.manager.shared_parts import Common
from distckpt.saving.background_save import BackgroundSave
from distckpt.state.numbering import read_integer
from distckpt.state.save_options import asks_for_async
from distckpt.state.tf_functions import refuse_in_function, without_autograph


class Operations:
    """The operations of one manager; `CheckpointManager` documents them for users.

    Args:
      common: What the manager's parts share.
      schedule: Decides which calls save.
      saving: Saves.
      restoring: Restores.
      prefix: How the names of checkpoints begin.

    Attributes:
      background: The save in the background.
    """

    def __init__(
        self,
        common: Common,
        schedule: SaveSchedule,
        saving: Saving,
        restoring: Restoring,
        prefix: str,
    ) -> None:
        self.background = BackgroundSave()
        self._job = common.job
        self._process = common.process
        self._options = common.options
        self._schedule = schedule
        self._saving = saving
        self._restoring = restoring
        self._prefix = prefix
        self._turns = ThreadTurns(self._check_caller)

    @without_autograph
    def save(
        self,
        number: Any,
        check_interval: bool,
        options: Any,
        metrics: Mapping[str, Any] | None,
        condition: Condition | None = None,
    ) -> str | None:
        """Saves, if the chief's `condition` says yes, too; returns the checkpoint's name."""
        in_background = self._options.enable_async or asks_for_async(options)
        request = Request(
            check=check_interval,
            background=in_background,
            skip_when_busy=in_background and self._options.when_busy == "skip",
            metrics=functools.partial(_checked, options, metrics),
            number=lambda: self._saving.counter.advance(number),
            expected=lambda: None if number is None else read_integer(number),
            options=options,
            only_if=condition,
            prepare=self._prepare,
        )
        with self._turns:
            skipped = self._schedule.skipped
            try:
                name = self._calls.save(request)
            finally:
                self._schedule.returned()
            if self._schedule.skipped > skipped:
                self._job.emit(SaveSkipped, skipped=self._schedule.skipped)
        return name

    def _check_caller(self) -> None:
        self._process.check()
        self.background.refuse_own_thread()

    def _prepare(self) -> None:
        refuse_in_function("save()")
        self._saving.counter.create()

    @without_autograph
    def sync(self) -> None:
        """Waits until the save in the background is committed."""
        with self._turns:
            self._calls.sync()

    @without_autograph
    def agree_on(self, value: Any) -> Any:
        """Returns the chief's `value`."""
        with self._turns:
            return self._job.decisions.agree_on(value)

    @without_autograph
    def restore(self) -> str | None:
        """Restores the newest good checkpoint, and returns its name; None if there is none."""
        refuse_in_function("restore_or_initialize()")
        with self._turns:
            calls = self._calls
            self.background.wait()
            name = self._restoring.restore()
            if name is not None:
                calls.restored()
        return name

    @functools.cached_property
    def _calls(self) -> SaveCalls:
        return SaveCalls(
            self._job.coordinator,
            self._job.log,
            self._schedule,
            self.background,
            self._saving,
            prefix=self._prefix,
            deadline=self._options.save_deadline,
        )


def _checked(options: Any, metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Returns the metrics of a call of ``save()``.

    Raises:
      ConfigurationError: An argument is wrong.
    """
    if options is not None:
        arguments.refuse_others("options", options, tf.train.CheckpointOptions)
    return arguments.metrics(metrics)
