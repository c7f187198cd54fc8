"""Save policies: which calls of ``save()`` save.

Small rules that compose with ``&`` and ``|``, given to a manager as `ManagerOptions.save_policy`:

    EverySteps(100) & TimeBudget(0.02)      every 100 steps, if saving takes at most 2 % of the time
    EverySeconds(600) | AtSteps([1, 10])    every ten minutes, and at two steps early on

``save()`` is then called in every step, and returns None where the policy says no. All workers
decide alike: what depends on steps alone each finds out for itself; what depends on time only the
chief knows. Without a clock such an answer is None, "ask the chief", and ``&`` and ``|`` are those
of Kleene's three-valued logic.

The idea of rules that compose is tenacity's and Orbax's; that of a budget of time, measured while
the program runs, is CheckFreq's (Mohan et al., FAST '21).
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
import math
from collections.abc import Iterable

from distckpt.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Moment:
    """What a policy may look at when ``save()`` is called.

    Attributes:
      step: The step counter; without one, how often ``save()`` was called.
      last_step: What it was at the last save that was begun, or restored from; None if none was.
      clock: The chief's; None on the other workers.
    """

    step: int
    last_step: int | None
    clock: Clock | None = None

    @property
    def since(self) -> int | None:
        """The last step, or None if the step counter was set back behind it."""
        return None if self.last_step is None or self.last_step > self.step else self.last_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """What only the chief knows.

    Attributes:
      elapsed: Seconds since the last save was begun, or since the manager was made.
      cost: Seconds of training that the last save took: how long ``save()`` kept the program, and
        by how much the steps during the save were slower than others. None before the first.
    """

    elapsed: float
    cost: float | None


class SavePolicy(abc.ABC):
    """Says whether a call of ``save()`` saves. Immutable; the same on all workers."""

    @abc.abstractmethod
    def decide(self, moment: Moment) -> bool | None:
        """Returns whether to save; None if that depends on the clock and there is none."""

    def rest(self, clock: Clock) -> float | None:
        """Returns for how many seconds from now only steps can say yes; None: for ever."""
        return None

    @property
    def needs_clock(self) -> bool:
        """Whether no step can say yes as long as the clock says no."""
        return False

    def __and__(self, other: SavePolicy) -> SavePolicy:
        """Returns the policy that saves when both do."""
        return Both(self, other)

    def __or__(self, other: SavePolicy) -> SavePolicy:
        """Returns the policy that saves when either does."""
        return Either(self, other)

    def __bool__(self) -> bool:
        """Raises ConfigurationError: ``a and b`` would silently be ``b``."""
        raise ConfigurationError("Combine save policies with & and |, not with and, or and not.")


@dataclasses.dataclass(frozen=True, repr=False)
class Both(SavePolicy):
    """Saves when `first` and `second` do; made by ``&``."""

    first: SavePolicy
    second: SavePolicy

    def __post_init__(self) -> None:
        _check_policies("&", self.first, self.second)

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        answers = (self.first.decide(moment), self.second.decide(moment))
        if False in answers:
            return False
        return None if None in answers else True

    def rest(self, clock: Clock) -> float | None:
        """See the base class."""
        parts = [(part, part.rest(clock)) for part in (self.first, self.second)]
        rests = [rest for _, rest in parts if rest is not None]
        if not rests:
            return None
        enough = [rest for part, rest in parts if rest is not None and part.needs_clock]
        return max([min(rests), *enough])

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return self.first.needs_clock or self.second.needs_clock

    def __repr__(self) -> str:
        return f"({self.first!r} & {self.second!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class Either(SavePolicy):
    """Saves when `first` or `second` does; made by ``|``."""

    first: SavePolicy
    second: SavePolicy

    def __post_init__(self) -> None:
        _check_policies("|", self.first, self.second)

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        answers = (self.first.decide(moment), self.second.decide(moment))
        if True in answers:
            return True
        return None if None in answers else False

    def rest(self, clock: Clock) -> float | None:
        """See the base class."""
        rests = (self.first.rest(clock), self.second.rest(clock))
        return min((rest for rest in rests if rest is not None), default=None)

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return self.first.needs_clock and self.second.needs_clock

    def __repr__(self) -> str:
        return f"({self.first!r} | {self.second!r})"


@dataclasses.dataclass(frozen=True)
class EverySteps(SavePolicy):
    """Saves when a multiple of `steps` has been reached or passed since the last save.

    So it does not matter whether ``save()`` is called in every step, nor at which step the program
    was restarted.
    """

    steps: int

    def __post_init__(self) -> None:
        if not _is_integer(self.steps) or self.steps < 1:
            raise ConfigurationError(
                f"EverySteps takes a positive number of steps, got {self.steps!r}."
            )

    def decide(self, moment: Moment) -> bool:
        """See the base class."""
        return moment.step // self.steps > (moment.since or 0) // self.steps


@dataclasses.dataclass(frozen=True)
class AtSteps(SavePolicy):
    """Saves when any of `steps` has been reached or passed since the last save."""

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        values = tuple(steps) if isinstance(steps, Iterable) else ()
        if not values or not all(map(_is_integer, values)):
            raise ConfigurationError(f"AtSteps takes some step numbers, got {steps!r}.")
        object.__setattr__(self, "steps", tuple(sorted(set(values))))

    def decide(self, moment: Moment) -> bool:
        """See the base class."""
        before = -math.inf if moment.since is None else moment.since
        passed = bisect.bisect_right(self.steps, moment.step)
        return passed > bisect.bisect_right(self.steps, before)


@dataclasses.dataclass(frozen=True)
class EverySeconds(SavePolicy):
    """Saves when the last save was begun at least `seconds` ago, by the chief's clock."""

    seconds: float

    def __post_init__(self) -> None:
        if not _is_number(self.seconds) or not 0 < self.seconds < math.inf:
            raise ConfigurationError(
                f"EverySeconds takes a positive number of seconds, got {self.seconds!r}."
            )

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        return None if moment.clock is None else self.rest(moment.clock) <= 0

    def rest(self, clock: Clock) -> float:
        """See the base class."""
        return self.seconds - clock.elapsed

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return True


@dataclasses.dataclass(frozen=True)
class TimeBudget(SavePolicy):
    """Saves only so often that saving takes at most `fraction` of the time, by the chief's clock.

    After a save that took c seconds of training it says no for c / `fraction` seconds: 0.4 s at a
    `fraction` of 0.02 for 20 s. Before the first save it says yes.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not _is_number(self.fraction) or not 0 < self.fraction <= 1:
            raise ConfigurationError(
                "TimeBudget takes the part of the time that saving may take, above 0 and up to 1, "
                f"e.g. 0.02 for 2 %; got {self.fraction!r}."
            )

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        return None if moment.clock is None else self.rest(moment.clock) <= 0

    def rest(self, clock: Clock) -> float:
        """See the base class."""
        return (clock.cost or 0.0) / self.fraction - clock.elapsed

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return True


def _check_policies(operator: str, *policies: object) -> None:
    for policy in policies:
        if not isinstance(policy, SavePolicy):
            raise ConfigurationError(f"{operator} combines two save policies, got {policy!r}.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
