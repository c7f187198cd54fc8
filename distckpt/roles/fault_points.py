"""Points at which a test may strike a real process: before and after each step of a save.

Nothing happens unless the environment variable DISTCKPT_FAULT was set when this module was
imported, or a test calls `arm`. Its text, for example

    worker=1 step=Write moment=before save=2 fault=kill

means: worker 1, in its second save, just before it writes, kills itself. The steps are the actions
of `core.steps`; the faults are those of `FaultPoint`.
"""

from __future__ import annotations

import dataclasses
import os
import typing

from distckpt import portable
from distckpt.core import steps
from distckpt.errors import ConfigurationError

VARIABLE = "DISTCKPT_FAULT"
FAULTS = ("kill", "stop", "raise", "exit")
MOMENTS = ("before", "after")
STEPS = tuple(action.__name__ for action in typing.get_args(steps.Action))
EXIT_CODE = 7


class Struck(RuntimeError):
    """What the fault "raise" raises."""


@dataclasses.dataclass(frozen=True)
class FaultPoint:
    """Where a fault strikes, and which: see the module.

    Attributes:
      worker: Index of the worker.
      step: Name of the action.
      moment: "before" or "after" it.
      save: In which save of the process, from 1.
      fault: "kill" (SIGKILL), "stop" (SIGSTOP), "raise" (`Struck`) or "exit" (at once, code 7).
    """

    worker: int
    step: str
    moment: str
    save: int
    fault: str

    @classmethod
    def parse(cls, text: str) -> FaultPoint:
        """Returns the point that a text means.

        Raises:
          ConfigurationError: It means none; says what is allowed.
        """
        try:
            fields = dict(word.split("=", 1) for word in text.split())
            worker, save = int(fields.pop("worker")), int(fields.pop("save"))
            point = cls(worker, fields["step"], fields["moment"], save, fields["fault"])
            if len(fields) != 3:
                raise KeyError("too many words")
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f'{VARIABLE}={text!r} is not like "worker=1 step=Write moment=before save=2 '
                f'fault=kill" ({error}).'
            ) from None
        for value, allowed in (
            (point.step, STEPS),
            (point.moment, MOMENTS),
            (point.fault, FAULTS),
        ):
            if value not in allowed:
                raise ConfigurationError(
                    f"{VARIABLE}={text!r}: {value!r} is none of {', '.join(allowed)}."
                )
        return point

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())


class _Armed:
    """What is still to strike in this process, and how many saves it has begun."""

    def __init__(self, point: FaultPoint | None) -> None:
        self.point = point
        self.saves: list[str] = []


def arm(point: FaultPoint | None) -> None:
    """Lets a fault strike this process, once; None lets none."""
    _armed.point = point
    _armed.saves.clear()


def reached(worker: int, name: str, step: str, moment: str) -> None:
    """Says that `worker` is before or after a step of saving checkpoint `name`."""
    point = _armed.point
    if point is None:
        return
    if name not in _armed.saves:
        _armed.saves.append(name)
    here = (worker, step, moment, len(_armed.saves))
    if here == (point.worker, point.step, point.moment, point.save):
        _armed.point = None
        _strike(point)


def _strike(point: FaultPoint) -> None:
    if point.fault == "raise":
        raise Struck(f"fault point: {point}")
    if point.fault == "exit":
        os._exit(EXIT_CODE)
    portable.strike(stop=point.fault == "stop")


_armed = _Armed(FaultPoint.parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
