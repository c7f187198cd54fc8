"""Names of the keys under which the workers publish their messages in one call."""

from __future__ import annotations

from collections.abc import Callable


class Keys:
    """Names of the coordination keys of one call.

    Args:
      manager: The manager's name, the same on all workers.
      kind: "call", "grace" or "leave".
      number: The number of the call of that kind, the same on all workers.
    """

    def __init__(self, manager: str, kind: str, number: int) -> None:
        self._base = f"{manager}/{kind}-{number}"
        self._turns = 0
        self._refusals = 0  # the highest number in a key of a refusal
        self._told: dict[int, int] = {}  # worker → the highest number in a key of its progress

    @property
    def call(self) -> str:
        """The chief's entry in the log of calls."""
        return f"{self._base}/call"

    @property
    def opening(self) -> str:
        """The chief's opening."""
        return f"{self._base}/opening"

    @property
    def outcome(self) -> str:
        """The chief's outcome."""
        return f"{self._base}/outcome"

    def answer(self, worker: int, turn: int = 0) -> str:
        """Answer `turn` of `worker`, which answers again if its first was for another moment."""
        self._turns = max(turn, self._turns)
        return f"{self._base}/answer-{worker}-{turn}"

    def refusal(self, number: int) -> str:
        """Refusal `number` of any worker; see `refusals`."""
        self._refusals = max(number, self._refusals)
        return f"{self._base}/refusal-{number}"

    def ready(self, worker: int) -> str:
        """The message that `worker` has come."""
        return f"{self._base}/ready-{worker}"

    @property
    def rendezvous(self) -> str:
        """The chief's message that all workers have come."""
        return f"{self._base}/rendezvous"

    def step(self, number: int) -> str:
        """The chief's proposal for step `number` of a restore."""
        return f"{self._base}/step-{number}"

    def verdict(self, number: int, worker: int) -> str:
        """The verdict of `worker` on step `number` of a restore."""
        return f"{self._base}/verdict-{number}-{worker}"

    def progress(self, worker: int, number: int) -> str:
        """Progress message `number` of `worker`."""
        self._told[worker] = max(number, self._told.get(worker, 0))
        return f"{self._base}/progress-{worker}-{number}"

    def all(self, workers: int) -> list[str]:
        """All keys of the call that this worker knows, to be forgotten."""
        each = [self.ready(w) for w in range(workers)]
        each += [self.answer(w, turn) for w in range(workers) for turn in range(self._turns + 1)]
        # Including each worker's next message, for which other workers may be waiting.
        words = [
            self.progress(w, n) for w, last in list(self._told.items()) for n in range(last + 2)
        ]
        refusals = [self.refusal(number) for number in range(self._refusals + 1)]
        return [self.call, self.rendezvous, self.opening, self.outcome, *refusals, *each, *words]


class Names(dict[int, str]):
    """Keys by worker, each made once: waiting for a thousand answers uses each a thousand times.

    Args:
      make: Returns the key of a worker.
    """

    def __init__(self, make: Callable[[int], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, worker: int) -> str:
        self[worker] = key = self._make(worker)
        return key
