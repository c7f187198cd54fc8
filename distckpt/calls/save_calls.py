"""One manager's calls of ``save()``: the other workers follow the order of the chief's calls.

`core.protocol.call_matching` has the rules, `calls.call_log` the log. If only one worker raises an
error, this module tells the other workers, and finds the right entry for the worker's next call.
"""

from __future__ import annotations

import dataclasses
import functools

from distckpt.calls.call_log import CallLog
from distckpt.calls.last_save import LastSave
from distckpt.calls.save_request import Joined, Request, Saver, Wanted
from distckpt.calls.save_schedule import SaveSchedule
from distckpt.coordination.base import Coordinator
from distckpt.core import layout
from distckpt.core.protocol import call_matching
from distckpt.core.protocol.call_matching import Move
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import Moment, Relation
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import DistckptError, Failure, StateMismatchError
from distckpt.messaging.keys import Keys
from distckpt.saving.background_save import BackgroundSave
from distckpt.saving.save_session import SaveSession

_GLANCE_EVERY = 0.05  # seconds


class SaveCalls:
    """The calls of ``save()`` of one manager. One at a time, on the training thread.

    Args:
      coordinator: The job.
      log: The log of calls.
      schedule: Decides which calls save.
      background: The background save.
      saver: Saves the state.
      prefix: How the names of checkpoints begin.
      deadline: Seconds to wait for the chief to come.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        log: CallLog,
        schedule: SaveSchedule,
        background: BackgroundSave,
        saver: Saver,
        *,
        prefix: str,
        deadline: float,
    ) -> None:
        self._coordinator = coordinator
        self._calls = log
        self._schedule = schedule
        self._background = background
        self._saver = saver
        self._prefix = prefix
        self._patience = Patience(deadline)
        self._last = LastSave(log, saver)
        self._late: BaseException | None = None
        self._is_again = False  # whether an earlier call at this moment has failed here
        self._unanswered: Moment | None = None  # of a call that the chief may wait for
        self._has_synced = False  # since this worker last came to a save or withdrew

    def save(self, request: Request) -> str | None:
        """Saves, as `CheckpointManager.save` says; returns the checkpoint's name."""
        self._calls.abandon()  # what an interrupt has left of an earlier call
        self._unanswered = None
        try:
            return self._save(request)
        except BaseException as error:
            self._leave(error)
            raise

    def _leave(self, error: BaseException) -> None:
        """Tells the other workers of an error that nothing else has told them."""
        if self._calls.leaves_background:
            me = self._coordinator.index
            self._background.fail(Failure.from_exception(error, me).to_error(me))
        self._calls.abandon(error)
        if self._unanswered is None:
            return
        if self._coordinator.is_chief:
            self._enter_failure(self._unanswered, error)
        else:
            self._withdraw(self._unanswered, error)

    def _save(self, request: Request) -> str | None:
        joined = self._lead(request) if self._coordinator.is_chief else self._follow(request)
        if joined is None or isinstance(joined, str):
            return joined
        background = self._background if joined.call.background else None
        try:
            self._saver.save(joined, background, functools.partial(self._begun, joined))
        except BaseException as error:
            if self._background.busy:  # only this call was interrupted: the save goes on
                self._schedule.saved(joined.call, in_flight=True)
            else:
                self._tell(joined, error)
                self._note_failure(joined)
            raise
        self._schedule.saved(joined.call, in_flight=self._background.busy)
        return joined.name

    def _begun(self, joined: Joined, session: SaveSession) -> None:
        """Notes that a session begins, which tells the other workers how the save ends."""
        self._last.begun(joined, session)
        self._calls.told()

    def _note_failure(self, joined: Joined) -> None:
        """Counts a failed call as the other workers do: by whether its save is committed."""
        if self._last.is_committed(joined):
            self._schedule.saved(joined.call, in_flight=self._background.busy)
        elif joined.call.background and not self._background.pending:
            self._schedule.failed()

    def _tell(self, joined: Joined, error: BaseException) -> None:
        """Tells the other workers of an error, if they do not know it yet, so that none waits."""
        if self._coordinator.count == 1:
            return
        if self._coordinator.is_chief:
            self._calls.fail(joined.keys, error)
        else:
            self._calls.give_up(joined.keys, joined.turn, error)
        self._calls.told()

    def sync(self) -> None:
        """Waits for the background save; raises its error, once."""
        self._calls.abandon()
        self._has_synced = True
        try:
            self._background.finish()
        except DistckptError as error:
            outcome = self._last.outcome(0.0)
            if outcome is None:
                self._schedule.failed()
                raise
            if outcome.failure is not None:
                self._schedule.failed()
                raise outcome.failure.to_error(self._coordinator.index) from error
        finally:
            self._calls.catch_up()

    def restored(self) -> None:
        """Notes that a checkpoint was restored: earlier saves no longer matter."""
        self._last.forget()
        self._schedule.restored()

    def _moment(self) -> Moment:
        """Returns the moment of this worker's state."""
        return Moment.of(self._calls.generation, self._saver.counters())

    def _count_call(self, request: Request) -> bool | None:
        """Counts this call before anything in it can fail, if calls are counted, not steps.

        Otherwise a call that fails on one worker alone would not count there, and that worker would
        save at other calls than the rest.

        Returns:
          Whether this call saves, as far as it is known yet.
        """
        if not self._schedule.counts_calls:
            return None
        self._schedule.called(in_flight=self._background.busy)
        return self._schedule.ask(check=request.check)

    def _count_step(self) -> None:
        """Reads the step counter, if there is one, now that the state is known to be readable."""
        if not self._schedule.counts_calls:
            self._schedule.called(in_flight=self._background.busy)

    # --- Chief ----------------------------------------------------------------------------------

    def _lead(self, request: Request) -> Joined | None:
        """Adds an entry for this call, unless no other worker will ask for it."""
        moment = Moment(self._calls.generation)
        due: bool | None = None
        try:
            due = self._count_call(request)
            request.prepare()
            moment = self._moment()
            self._count_step()
            due = self._schedule.ask(check=request.check)
            metrics = request.metrics()
            if due is False:
                return None
            call = self._decide(
                Call(call_matching.SAVE, moment, step=self._schedule.step), request, due
            )
            self._unanswered = moment
        except BaseException as error:
            if due is not False:  # otherwise no worker asks for an entry
                self._enter_failure(moment, error)
            raise
        number = self._calls.passed
        keys = self._enter(call)
        if not call.save:
            return None
        return Joined(call, keys, number, 0, call.name, moment, metrics, request.options)

    def _decide(self, call: Call, request: Request, due: bool | None) -> Call:
        """Returns the entry with the chief's decision."""
        if due is None or request.skip_when_busy:
            decision = self._schedule.decide(
                check=request.check,
                in_flight=self._background.busy,
                skip_when_busy=request.skip_when_busy,
            )
            call = dataclasses.replace(call, busy=decision.busy, rest_until=decision.rest_until)
            if not decision.save:
                return call
        word = request.only_if.decide() if request.only_if is not None else None
        if request.only_if is not None and word is None:
            return call
        try:
            self._background.finish()
        except BaseException as error:
            self._late = error
            raise
        request.hear(word)
        counter, number = request.number()
        return dataclasses.replace(
            call,
            save=True,
            word=word,
            background=request.background,
            name=layout.numbered_name(self._prefix, number),
            counter=counter,
        )

    def _enter_failure(self, moment: Moment, error: BaseException) -> None:
        failure = Failure.from_exception(error, self._coordinator.index)
        late, step = error is self._late, self._schedule.step
        self._enter(Call(call_matching.SAVE, moment, failure, late=late, step=step))

    def _enter(self, call: Call) -> Keys:
        self._unanswered = None
        keys = self._calls.enter(call)
        self._schedule.heed(call)
        return keys

    # --- Other workers --------------------------------------------------------------------------

    def _follow(self, request: Request) -> Joined | str | None:
        """Finds the chief's entry for this call.

        Returns:
          The save in which this worker takes part; the checkpoint's name, if it is already
          committed; None if nothing is saved.
        """
        moment = Moment(self._calls.generation)
        due: bool | None = None
        self._is_again = False
        try:
            due = self._count_call(request)
            request.prepare()
            moment = self._moment()
            self._count_step()
            name = self._settle(moment)
            due = self._schedule.ask(check=request.check)
            metrics, expected = request.metrics(), request.expected()
            if name is not None or due is False:
                return name
            if not request.skip_when_busy:
                self._wait_for_background(request)
            self._unanswered = moment
        except BaseException as error:
            if due is not False:  # otherwise the chief adds no entry for this call, either
                self._withdraw(moment, error)
            raise
        return self._find(Wanted(request, moment, metrics, expected), due)

    def _settle(self, moment: Moment) -> str | None:
        """Finds out how the previous save ended, if this worker stopped waiting for its outcome.

        Returns:
          The checkpoint's name, if it is committed and this call is at the same moment.
        """
        joined = None if self._background.pending else self._last.settle(self._patience)
        if joined is None:
            return None
        self._schedule.settled(joined.call)
        same = moment.is_known and moment.relation(joined.moment) is Relation.SAME
        return joined.name if same else None

    def _wait_for_background(self, request: Request) -> None:
        """Waits for the save in flight, as the chief does before it saves again.

        With a condition, the chief may have said no without waiting: then its entry exists already.
        """
        while request.only_if is not None and self._background.busy:
            if self._calls.glance() is not None:
                return
            self._background.wait(_GLANCE_EVERY)
        self._background.wait()

    def _find(self, wanted: Wanted, due: bool | None) -> Joined | None:
        moment = wanted.moment
        while True:
            keys, call = self._look(moment)
            move = self._judge(keys, call, moment)
            if move is Move.JOIN:
                return self._join(wanted, keys, call)
            error = self._mismatch(moment, call)
            if move is Move.AHEAD:
                self._unanswered = None
                if due is None and call.kind == call_matching.SAVE:
                    return None  # the chief decided not to save at this moment
                raise error
            self._leave_out(call, move, error)
            if move is Move.MISMATCH:
                self._unanswered = None
                raise error
            if moment.is_known and call.moment.relation(moment) is Relation.SAME:
                self._is_again = True  # the program calls again, maybe also on the chief
            else:
                due = self._schedule.ask(check=wanted.request.check)
                if due is False:
                    self._unanswered = None
                    return None

    def _look(self, moment: Moment) -> tuple[Keys, Call]:
        try:
            return self._calls.look("save()", self._patience)
        except BaseException as error:
            self._withdraw(moment, error)
            raise

    def _withdraw(self, moment: Moment, error: BaseException) -> None:
        """Tells the chief that this worker raises `error` instead of coming to its call."""
        while (found := self._calls.glance()) is not None:
            keys, call = found
            move = self._judge(keys, call, moment)
            if move not in (Move.PASS, Move.REFUSE):
                break
            self._leave_out(call, move, self._mismatch(moment, call))
        self._calls.withdraw(moment, error)
        self._unanswered = None
        self._has_synced = False

    def _judge(self, keys: Keys, call: Call, moment: Moment) -> Move:
        return call_matching.on_save(
            call, moment, self._calls.withdrawn, lambda: self._calls.outcome(keys) is not None
        )

    def _leave_out(self, call: Call, move: Move, error: DistckptError) -> None:
        """Goes on to the next entry without taking part in this one."""
        if move is not Move.PASS:
            self._calls.refuse(error)
        self._calls.pass_on()
        self._schedule.heed(call)
        if call.save and call.background:
            if self._has_synced:
                self._schedule.failed()  # sync() raised the error on the chief
            else:
                self._background.fail(error)  # raised when the chief raises its error

    def _join(self, wanted: Wanted, keys: Keys, call: Call) -> Joined | None:
        """Does what this call's entry says."""
        self._unanswered = None  # first: without a step counter, no call may count twice
        number, turn = self._calls.passed, self._calls.join(call)
        if self._is_again:
            self._schedule.failed()
        self._schedule.heed(call)
        self._schedule.count_as(call)
        self._has_synced = False
        if call.failure is not None:
            if call.late:
                self._background.dismiss()
            raise call.failure.to_error(self._coordinator.index)
        if not call.save:
            return None
        self._resolve()
        self._saver.take_over(call.counter)
        wanted.request.hear(call.word)
        name, options = self._name_of(call, wanted.expected), wanted.request.options
        return Joined(call, keys, number, turn, name, wanted.moment, wanted.metrics, options)

    def _resolve(self) -> None:
        """Forgets an error of the previous save: the chief goes on, so it has raised it, too."""
        self._background.wait()
        if self._background.has_failed:
            self._last.outcome(self._patience.seconds)
        self._background.dismiss()
        self._last.forget()

    def _name_of(self, call: Call, expected: int | None) -> str:
        """Returns the checkpoint's name as this worker expects it; the protocol compares it."""
        number = layout.split_number(call.name)[1] if expected is None else expected
        return call.name if number is None else layout.numbered_name(self._prefix, number)

    def _mismatch(self, moment: Moment, call: Call) -> StateMismatchError:
        me = self._coordinator.index
        error = StateMismatchError(call_matching.differ(self._coordinator.name(me), moment, call))
        error.worker = me
        return error
