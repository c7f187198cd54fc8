"""The coordination port: what the workers of one job need to agree on a save.

A key-value store in which a key is published once, a way to wait for keys with a deadline, and
the word on who has died. There is no barrier: "everybody has arrived" is the presence of N keys,
which, unlike a barrier, also tells who is missing. The contract is spelled out, clause by clause,
as tests in `distckpt.testing.coordinator_contract`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence


class Coordinator(abc.ABC):
    """One worker's view of its job.

    All methods may be called from any thread. Worker 0 is the chief.
    """

    @property
    @abc.abstractmethod
    def index(self) -> int:
        """This worker's index, from 0 (the chief) to `count` - 1."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """The number of workers in the job, the chief included."""

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that commits and prunes."""
        return self.index == 0

    @property
    def mirrors_only_distributed(self) -> bool:
        """Whether only variables made under a `tf.distribute` strategy are equal on all workers.

        True where TensorFlow runs the job. Elsewhere all of the state is taken to be.
        """
        return False

    def name(self, index: int) -> str:
        """Returns what people call worker `index`, for messages: "worker 1"."""
        return f"worker {index}"

    @abc.abstractmethod
    def publish(self, key: str, value: str) -> None:
        """Makes `value` visible to all under `key`.

        Keys are made of ``[A-Za-z0-9._-]`` and "/". A key published a second time keeps its first
        value, silently: the protocol never publishes two different values under one key, and an
        answer that got lost may be sent again. A value is any text without NUL, of megabytes if
        need be.

        Raises:
          errors.WorkerLostError: The coordination engine cannot be reached; the text names the
            worker it runs on, or this one.
        """

    @abc.abstractmethod
    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """Waits until any of `keys` is published.

        Args:
          keys: One key or more.
          timeout: Seconds to wait at the most; 0 looks once. May overrun by a fraction of a second.

        Returns:
          (key, value) of one that is there (the first in `keys`, if several are), or None after
          `timeout`.

        Raises:
          errors.WorkerLostError: As for `publish`.
        """

    @abc.abstractmethod
    def lost(self) -> dict[int, str]:
        """Returns the workers known to be dead or gone, each with the reason. Never raises.

        A reason is one line that completes "worker 1 died: …". A worker that has not come yet is
        not lost.

        An engine that cannot be reached is reported as the death of worker 0, where it runs.
        """

    def has_joined(self, index: int) -> bool:
        """Returns whether worker `index` has ever been seen in this job. Never raises.

        Where the engine itself begins only when all are there, always True.
        """
        return True

    @abc.abstractmethod
    def forget(self, keys: Sequence[str]) -> None:
        """Drops keys that nobody will ask for again. Best effort; never raises."""

    def close(self) -> None:  # noqa: B027 - most adapters hold nothing
        """Lets go of what the adapter holds; further calls are not allowed."""
