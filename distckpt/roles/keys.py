"""Names of the keys under which the workers publish what they tell each other in one call."""

from __future__ import annotations

from collections.abc import Callable


class Keys:
    """Names of the coordination keys of one call.

    Args:
      manager: Which of the program's managers, counted alike on all workers.
      kind: "save", "restore" or "pace".
      number: Which call of that kind, counted alike on all workers.
    """

    def __init__(self, manager: str, kind: str, number: int) -> None:
        self._base = f"{manager}/{kind}-{number}"
        self._told: dict[int, int] = {}  # worker → the highest number in a key of its progress

    @property
    def opening(self) -> str:
        """The chief's opening."""
        return f"{self._base}/opening"

    @property
    def outcome(self) -> str:
        """The chief's last word."""
        return f"{self._base}/outcome"

    def answer(self, worker: int) -> str:
        """The answer of `worker`."""
        return f"{self._base}/answer-{worker}"

    def ready(self, worker: int) -> str:
        """The sign that `worker` has come."""
        return f"{self._base}/ready-{worker}"

    @property
    def roll(self) -> str:
        """The chief's word that all have come."""
        return f"{self._base}/roll"

    def step(self, number: int) -> str:
        """The chief's proposal for step `number` of a restore."""
        return f"{self._base}/step-{number}"

    def verdict(self, number: int, worker: int) -> str:
        """The verdict of `worker` on step `number` of a restore."""
        return f"{self._base}/verdict-{number}-{worker}"

    def progress(self, worker: int, number: int) -> str:
        """Word `number` of `worker` on its progress."""
        self._told[worker] = max(number, self._told.get(worker, 0))
        return f"{self._base}/progress-{worker}-{number}"

    def all(self, workers: int) -> list[str]:
        """All keys of the call that this worker can know of, to be forgotten."""
        each = [k for w in range(workers) for k in (self.answer(w), self.ready(w))]
        # And the next word of each, which others may be waiting for.
        words = [
            self.progress(w, n) for w, last in list(self._told.items()) for n in range(last + 2)
        ]
        return [self.roll, self.opening, self.outcome, *each, *words]


class Names(dict[int, str]):
    """Keys by worker, each made once: waiting for a thousand answers asks a thousand times for all.

    Args:
      make: Returns the key of a worker.
    """

    def __init__(self, make: Callable[[int], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, worker: int) -> str:
        self[worker] = key = self._make(worker)
        return key
