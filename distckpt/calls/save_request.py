"""The arguments of a call of ``save()``, and what it becomes when the chief has decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from distckpt.core.protocol.messages import Call, Outcome
from distckpt.core.protocol.moment import Moment
from distckpt.messaging.keys import Keys
from distckpt.saving.background_save import BackgroundSave
from distckpt.saving.save_session import SaveSession


@dataclasses.dataclass(frozen=True)
class Condition:
    """A condition for a save, which only the chief checks, after interval and policy.

    The answer is in the entry of the call and needs no count of its own. So a call that one worker
    has left out does not put later ones out of step.

    Attributes:
      decide: Chief: returns a number that all workers get before they save; None to save nothing.
      hear: Every worker that saves: receives that number.
    """

    decide: Callable[[], float | None]
    hear: Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of a call of ``save()``.

    Attributes:
      check: Whether interval and policy are checked.
      background: Whether the save goes on in the background.
      skip_when_busy: Whether nothing is saved while a save is in flight.
      metrics: Returns the metrics, or raises if an argument of the call is wrong.
      number: Chief: advances ``save_counter``; returns it, and the number in the name.
      expected: Another worker: returns the number that the program gave for the name, or None.
      options: `tf.train.CheckpointOptions`, or None.
      only_if: A further condition, or None.
      prepare: Called before the state is read; raises if it cannot be. Does not wait for others.
    """

    check: bool
    background: bool
    skip_when_busy: bool
    metrics: Callable[[], dict[str, float]]
    number: Callable[[], tuple[int, int]]
    expected: Callable[[], int | None]
    options: Any = None
    only_if: Condition | None = None
    prepare: Callable[[], None] = lambda: None

    def hear(self, word: float | None) -> None:
        """Passes the chief's number to the condition, before the state is held."""
        if self.only_if is not None and word is not None:
            self.only_if.hear(word)


@dataclasses.dataclass(frozen=True)
class Joined:
    """A save in which this worker takes part.

    Attributes:
      call: The chief's entry.
      keys: The keys of the call.
      number: The number of the entry.
      turn: The number of this worker's next answer to the call.
      name: The checkpoint's name as this worker expects it.
      moment: This worker's moment.
      metrics: The checkpoint's metrics.
      options: As in the `Request`.
    """

    call: Call
    keys: Keys
    number: int
    turn: int
    name: str
    moment: Moment
    metrics: dict[str, float]
    options: Any


class Saver(Protocol):
    """Saves the state of one manager."""

    def counters(self) -> Mapping[str, float]:
        """Returns the counters in this worker's state; see `core.protocol.moment.Moment`."""

    def take_over(self, counter: int) -> None:
        """Sets this worker's ``save_counter`` to the chief's."""

    def save(
        self,
        joined: Joined,
        background: BackgroundSave | None,
        begun: Callable[[SaveSession], None],
    ) -> None:
        """Does a save, or only holds the state and lets `background` do the rest.

        Args:
          joined: The save.
          background: Does the rest; None to do all in this thread.
          begun: Called with the session before it runs.

        Raises:
          Exception: The save failed, and the other workers were told. `background`, if given, gets
            the error, too: the other workers hear of it only when they wait for the background.
        """

    def adopt(self, outcome: Outcome) -> None:
        """Takes over the outcome of a save that this worker had stopped waiting for."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A call of a worker that looks for the chief's entry of the same call."""

    request: Request
    moment: Moment
    metrics: dict[str, float]
    expected: int | None
