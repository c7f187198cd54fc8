"""The log of the chief's calls, in the key-value store of the job.

`core.protocol.call_matching` says how the other workers follow it.

The chief publishes one entry for each call before anything in the call can go wrong. The keys of a
call are forgotten when all workers have taken part in a later one. If no save succeeds for a long
time, the chief closes whole blocks of old entries instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions, messages
from distckpt.core.protocol.call_matching import needs_workers
from distckpt.core.protocol.messages import Call, Outcome, Refusal
from distckpt.core.protocol.moment import Moment, Relation
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import (
    DeadlineExceededError,
    DistckptError,
    Failure,
    SaveFailedError,
    WorkerLostError,
)
from distckpt.messaging import refusals
from distckpt.messaging.keys import Keys
from distckpt.messaging.waiting import Waiting

_log = logging.getLogger("distckpt")
# The number of entries in a block.
BLOCK = 256
# A worker withdraws at most this often from entries that it has not passed: errors in every call
# must not fill the store.
_MOST_WITHDRAWALS = 32


@dataclasses.dataclass(frozen=True)
class _Open:
    """An entry that the other workers wait for, while nobody tells them how it ends.

    Attributes:
      number: The number of the entry.
      keys: The keys of its call.
      call: What the entry says.
      turn: The number of this worker's next answer to it.
    """

    number: int
    keys: Keys
    call: Call
    turn: int


class CallLog:
    """One worker's view of the log of one manager. On the training thread, except `all_came`.

    Args:
      coordinator: The job.
      manager: The manager's name, the same on all workers.

    Attributes:
      generation: The number of the restore that this worker's state comes from; see `Moment`.
    """

    def __init__(self, coordinator: Coordinator, manager: str) -> None:
        self._coordinator = coordinator
        self._manager = manager
        self._cursor = 0
        self.generation = 0
        self._withdrawn: dict[int, list[Moment]] = {}  # by entry, from the cursor on
        self._refusals: list[tuple[int, str]] = []  # entry, key
        self._lock = threading.Lock()
        self._entries: deque[tuple[int, Keys]] = deque()  # the chief's entries not yet forgotten
        self._owed: deque[tuple[str, str]] = deque()  # keys and values that are yet to be published
        self._saving = -1  # the last entry that saves; its save may still be in flight
        self._open: _Open | None = None
        self._closed = 0  # the number of closed blocks
        self._closings: list[str] = []

    @property
    def passed(self) -> int:
        """How many entries are behind the cursor; the last of them has this number minus one."""
        return self._cursor

    # --- Chief ----------------------------------------------------------------------------------

    def enter(self, call: Call) -> Keys:
        """Adds an entry, and returns the keys of its call.

        Raises:
          DistckptError: The entry cannot be published.
        """
        self.abandon()
        number = self._cursor
        keys = Keys(self._manager, "call", number)
        if self._coordinator.count == 1:
            self._cursor += 1
            return keys
        self._open = _Open(number, keys, call, 0)
        try:
            self._cursor += 1
            if call.save:
                self._saving = number
            with self._lock:
                self._entries.append((number, keys))
            self.catch_up()
            self._close_old_block()
            self._coordinator.publish(keys.call, messages.to_json(call))
        except BaseException as error:  # interrupted: the entry may be published or not
            self.abandon(error)
            raise
        if not call.save:
            self.told()
        return keys

    def told(self) -> None:
        """Notes that the other workers are told how the open entry ends, by whoever does it."""
        self._open = None

    @property
    def leaves_background(self) -> bool:
        """Whether the open entry is that of a save in the background."""
        return self._open is not None and self._open.call.background

    def abandon(self, error: BaseException | None = None) -> None:
        """Tells the other workers that this worker has left the open entry, if there is one.

        An interrupt may end a call anywhere, also after the cursor has moved and before anything
        else would tell the others. Without a word from this worker, they would wait until the
        deadline; and for an entry that was never published, in each of their later calls.

        Args:
          error: What has ended the call; None if the next call finds out that it was interrupted.
        """
        here = self._open
        if here is None:
            return
        if error is None:
            who = self._coordinator.name(self._coordinator.index)
            error = SaveFailedError(f"{who} was interrupted. Call the method again on all workers.")
        if self._cursor == here.number:
            self.pass_on()
        if self._coordinator.is_chief:
            failed = dataclasses.replace(here.call, save=False, failure=_failure(error, 0))
            with self._lock:
                if (here.number, here.keys) not in self._entries:
                    self._entries.append((here.number, here.keys))
            self.owe(here.keys.call, messages.to_json(failed))
            self.owe(here.keys.outcome, messages.to_json(Outcome(failed.failure)))
            self.told()
            self.catch_up()
        else:
            self.give_up(here.keys, here.turn, error)
            self.told()

    def fail(self, keys: Keys, error: BaseException) -> None:
        """Tells the other workers that a call has failed, if they do not know its outcome yet."""
        self._publish_or_owe(keys.outcome, messages.to_json(Outcome(_failure(error, 0))))

    def owe(self, key: str, value: str) -> None:
        """Remembers a message that others wait for and that was not published. Any thread."""
        self._owed.append((key, value))

    def catch_up(self) -> None:
        """Publishes the owed messages in order, as far as that is possible now.

        They are entries of failed calls, and outcomes. Without them, the other workers would wait
        in each of their later calls.
        """
        while self._owed and self._publish(*self._owed[0]):
            self._owed.popleft()

    def all_came(self, number: int) -> None:
        """Forgets the entries before `number`, since all have joined that one. Any thread."""
        with self._lock:
            old, self._closings = self._closings, []
            old += self._remove_before(number)
            self._closed = max(self._closed, number // BLOCK)
        if old:
            self._coordinator.forget(old)

    def _close_old_block(self) -> None:
        """Forgets the entries of an old block, and publishes a key that says so."""
        with self._lock:
            block = self._closed
            if block > self._cursor // BLOCK - 2:
                return
            self._closed += 1
            self._closings.append(self._closing(block))
            old = self._remove_before(self._closed * BLOCK)
        self._publish_or_owe(self._closing(block), str((block + 1) * BLOCK))
        self._coordinator.forget(old)

    def _remove_before(self, number: int) -> list[str]:
        """Removes the entries before `number` and returns their keys; keeps a save in flight."""
        old = [(n, keys) for n, keys in self._entries if n < number and n != self._saving]
        for entry in old:
            self._entries.remove(entry)
        return [key for _, keys in old for key in keys.all(self._coordinator.count)]

    def _closing(self, block: int) -> str:
        return f"{self._manager}/closed-{block}"

    # --- Other workers --------------------------------------------------------------------------

    def look(self, what: str, patience: Patience) -> tuple[Keys, Call]:
        """Waits for the entry at the cursor, and returns it with the keys of its call.

        Args:
          what: The call's name in messages: "save()".
          patience: How long to wait.

        Raises:
          DeadlineExceededError: The chief never came.
          WorkerLostError: The chief died.
        """
        while True:
            keys = Keys(self._manager, "call", self._cursor)
            found = Waiting(self._coordinator, keys, what, patience).for_call()
            if isinstance(found, Call):
                return keys, found
            closing = self._coordinator.fetch([self._closing(self._cursor // BLOCK)], 0.0)
            if isinstance(found, actions.Lost) or closing is None:
                raise found.failure.to_error()
            self._move_to(int(closing[1]))

    def glance(self) -> tuple[Keys, Call] | None:
        """Returns the entry at the cursor, if it is published; see `look`."""
        keys = Keys(self._manager, "call", self._cursor)
        with contextlib.suppress(WorkerLostError):
            found = self._coordinator.fetch([keys.call], 0.0)
            return (keys, messages.call_from_json(found[1])) if found else None
        return None

    def outcome(self, keys: Keys, seconds: float = 0.0) -> Outcome | None:
        """Returns the outcome of a call; None if it is not published within `seconds`."""
        with contextlib.suppress(WorkerLostError):
            found = self._coordinator.fetch([keys.outcome], seconds)
            return messages.outcome_from_json(found[1]) if found else None
        return None

    @property
    def withdrawn(self) -> Sequence[Moment]:
        """The moments at which this worker has withdrawn from the entry at the cursor."""
        return self._withdrawn.get(self._cursor, ())

    @property
    def turn(self) -> int:
        """How often this worker has withdrawn from the entry at the cursor."""
        return len(self.withdrawn)

    def withdraw(self, moment: Moment, error: BaseException) -> None:
        """Tells the chief that this worker raises `error` instead of calling at that moment.

        Each call answers one entry. So if the program calls again at that moment before the chief
        has made the entry of the first call, this call answers the entry after it.
        """
        if sum(map(len, self._withdrawn.values())) >= _MOST_WITHDRAWALS:
            return
        entry = self._cursor
        while any(m.relation(moment) is not Relation.EARLIER for m in self._of(entry)):
            entry += 1
        self._answer(entry, moment, error)
        self._of(entry).append(moment)

    def refuse(self, error: BaseException) -> None:
        """Tells the chief that this worker does not take part in the entry at the cursor."""
        self._answer(self._cursor, None, error)

    def _of(self, entry: int) -> list[Moment]:
        return self._withdrawn.setdefault(entry, [])

    def _answer(self, entry: int, moment: Moment | None, error: BaseException) -> None:
        me = self._coordinator.index
        keys = Keys(self._manager, "call", entry)
        refusal = Refusal(me, _failure(error, me), moment=moment)
        self._refuse(keys, len(self._of(entry)), refusal, entry)

    def give_up(self, keys: Keys, turn: int, error: BaseException) -> None:
        """Tells the chief that this worker leaves a call, if it has not answered yet."""
        me = self._coordinator.index
        self._refuse(keys, turn, Refusal(me, _failure(error, me)))

    def _refuse(self, keys: Keys, turn: int, refusal: Refusal, entry: int | None = None) -> None:
        try:
            published = refusals.publish(self._coordinator, keys, turn, refusal)
        except DistckptError as error:
            _log.warning("%s", error)  # the chief, which waits for it, gets an error, too
            published = [keys.answer(self._coordinator.index, turn)]
        if entry is not None:
            self._refusals += [(entry, key) for key in published]

    def _publish(self, key: str, value: str) -> bool:
        try:
            self._coordinator.publish(key, value)
        except DistckptError as error:
            _log.warning("%s", error)  # the workers that wait for it get an error, too
            return False
        return True

    def _publish_or_owe(self, key: str, value: str) -> None:
        if not self._publish(key, value):
            self.owe(key, value)

    def pass_on(self) -> None:
        """Moves the cursor to the next entry."""
        self._move_to(self._cursor + 1)

    def join(self, call: Call) -> int:
        """Takes part in the entry at the cursor; returns the number of the worker's answer."""
        turn, here = self.turn, self._cursor
        if call.save:
            self._open = _Open(here, Keys(self._manager, "call", here), call, turn)
        self.pass_on()
        if needs_workers(call):  # the chief has ended its earlier calls, and read their answers
            old = [key for number, key in self._refusals if number < here]
            self._refusals = [refusal for refusal in self._refusals if refusal[0] >= here]
            if old:
                self._coordinator.forget(old)
        return turn

    def _move_to(self, number: int) -> None:
        self._cursor = number
        self._withdrawn = {n: found for n, found in self._withdrawn.items() if n >= number}


def _failure(error: BaseException, worker: int) -> Failure:
    failure = Failure.from_exception(error, worker)
    if isinstance(error, DeadlineExceededError):  # its text is about other workers
        text = f"worker {worker} gave up waiting: {failure.message}"
        return dataclasses.replace(failure, message=text)
    return failure
