"""How a run is set up."""

from __future__ import annotations

import dataclasses

from .choices import Choices


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is set up."""

    jobs: int
    durable: bool
    names: int
    max_to_keep: int | None
    hours: float | None
    collective: bool
    late: bool
    lag: float
    deadline: float
    slow_factor: float
    own: bool
    pins: bool

    @classmethod
    def choose(cls, choices: Choices) -> Settings:
        """Returns settings by chance."""
        return cls(
            jobs=choices.of(1, 1, 1, 2, 2, 3),
            durable=choices.of(True, True, True, False),
            names=choices.of(0, 2, 3),
            max_to_keep=choices.of(2, 1, 1, None),
            hours=choices.of(None, None, None, None, 0.001),
            collective=choices.of(False, False, False, True),
            late=choices.of(False, False, True),
            lag=choices.of(0.0, 0.0, 0.05, 3.0),
            deadline=choices.of(3.0, 10.0),
            slow_factor=choices.of(1.0, 3.0),
            own=choices.of(False, False, True),
            pins=choices.of(False, False, True),
        )
