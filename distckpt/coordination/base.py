"""The coordination port: what the workers of one job need to agree on a save.

A key-value store in which a key is published once, a way to wait for keys with a deadline, and
reports of deaths. There is no barrier: "all have arrived" is the presence of N keys, which, unlike
a barrier, also tells who is missing. The contract is spelled out, clause by clause, as tests in
`distckpt.testing.coordinator_clauses`.
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
        """Whether this worker commits and prunes."""
        return self.index == 0

    @property
    def mirrors_only_distributed(self) -> bool:
        """Whether only variables made under a `tf.distribute` strategy are equal on all workers.

        True where TensorFlow runs the job. Elsewhere the whole state is assumed to be equal.
        """
        return False

    def name(self, index: int) -> str:
        """Returns the name of worker `index` in messages: "worker 1"."""
        return f"worker {index}"

    @abc.abstractmethod
    def publish(self, key: str, value: str) -> None:
        """Makes `value` visible to all under `key`.

        Keys are made of ``[A-Za-z0-9._-]`` and "/". A key published a second time silently
        keeps its first value: the protocol never publishes two different values under one key, and
        a lost answer may be sent again. A value is any text without NUL, even of megabytes.

        Raises:
          errors.WorkerLostError: The coordination service cannot be reached; the text names the
            worker it runs on, or this worker.
          errors.DistckptError: The service refuses the value, for example with `StorageFullError`.
        """

    @abc.abstractmethod
    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """Waits until any of `keys` is published.

        Args:
          keys: One key or more.
          timeout: Maximum seconds to wait; 0 looks once. May overrun by a fraction of a second.

        Returns:
          (key, value) of a published key (the first in `keys`, if there are several), or None
          after `timeout`.

        Raises:
          errors.WorkerLostError: As for `publish`.
        """

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """Does what `fetch` does, but returns all of `keys` that are published, or some of them.

        Returns [] after `timeout`. A thousand answers are then taken in a few calls.

        If there are more than a few keys, both methods may find a key late that is far back in
        `keys`, as long as those before it are absent. Where that matters, publish the message
        under a key that all share, too, and put that first.
        """
        found = self.fetch(keys, timeout)
        return [] if found is None else [found]

    @abc.abstractmethod
    def lost(self) -> dict[int, str]:
        """Returns the workers known to be dead or to have left, with the reasons. Never raises.

        A reason is one line that completes "worker 1 died: …". A worker that has not come yet is
        not lost.

        A service that cannot be reached is reported as the death of worker 0, where it runs.
        """

    def chief_lost(self) -> str | None:
        """Returns why worker 0 is lost, like `lost`; None if it is not known to be. Never raises.

        All but the chief ask only this as long as they wait for the chief alone: if each of a
        thousand workers asked who of a thousand is alive, the service would do little else.
        """
        return self.lost().get(0)

    def has_joined(self, index: int) -> bool:
        """Returns whether worker `index` has ever been seen in this job. Never raises.

        Always True if the service itself starts only when all workers have joined.
        """
        return True

    @abc.abstractmethod
    def forget(self, keys: Sequence[str]) -> None:
        """Deletes keys that will not be fetched again. Best effort; never raises."""

    def stop_waiting(self, keys: Sequence[str]) -> None:  # noqa: B027 - most adapters do nothing
        """Says that this worker will not fetch these keys again, although they may be published.

        An adapter that watches keys with a few threads may need them for others. Never raises.
        """

    def close(self) -> None:  # noqa: B027 - most adapters hold nothing
        """Releases the adapter's resources; further calls are not allowed."""
