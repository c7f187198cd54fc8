"""Fault points: tests can make a real process fail before or after each step of a save.

Nothing happens unless the environment variable DISTCKPT_FAULT was set when this module was
imported, or a test calls `arm`. For example,

    worker=1 step=Write moment=before save=2 fault=kill

means that worker 1 kills itself in its second save, just before it writes. The steps are the
actions of `core.protocol.actions`; the faults are those of `FaultPoint`.
"""

from __future__ import annotations

import dataclasses
import os
import typing

from distckpt.core.protocol import actions
from distckpt.errors import ConfigurationError
from distckpt.runtime import portable

VARIABLE = "DISTCKPT_FAULT"
FAULTS = ("kill", "stop", "raise", "exit")
MOMENTS = ("before", "after")
STEPS = tuple(action.__name__ for action in typing.get_args(actions.Action))
EXIT_CODE = 7


class Struck(RuntimeError):
    """The error that the fault "raise" raises."""


@dataclasses.dataclass(frozen=True)
class FaultPoint:
    """A fault, and where it happens; see the module's docstring.

    Attributes:
      worker: Index of the worker.
      step: Name of the action.
      moment: "before" or "after" it.
      save: The number of the save in its process, from 1.
      fault: "kill" (SIGKILL), "stop" (SIGSTOP), "raise" (`Struck`) or "exit" (at once, code 7).
    """

    worker: int
    step: str
    moment: str
    save: int
    fault: str

    @classmethod
    def parse(cls, text: str) -> FaultPoint:
        """Returns the fault point in a text.

        Raises:
          ConfigurationError: The text is invalid; the message says what is allowed.
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
    """The fault point that is set in this process, and the saves that have begun."""

    def __init__(self, point: FaultPoint | None) -> None:
        self.point = point
        self.saves: list[str] = []


def arm(point: FaultPoint | None) -> None:
    """Sets the fault point of this process, for one fault; None for no fault."""
    _armed.point = point
    _armed.saves.clear()


def reached(worker: int, name: str, step: str, moment: str) -> None:
    """Called before and after each step of `worker` in saving checkpoint `name`."""
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
