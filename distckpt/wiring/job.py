"""The job as one manager sees it: who is in it, and how its managers and calls are told apart."""

from __future__ import annotations

import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator

from distckpt.coordination.base import Coordinator
from distckpt.coordination.choose import default_coordinator
from distckpt.options import ManagerOptions
from distckpt.roles.emitter import Emitter
from distckpt.roles.keys import Keys
from distckpt.roles.pace import Agreement

# The managers of each coordinator, and of the job's own, are counted: by that number the workers
# know which of them a message is for.
_managers = itertools.count()
_managers_of: weakref.WeakKeyDictionary[Coordinator, Iterator[int]] = weakref.WeakKeyDictionary()


class Job:
    """One manager's way to the other workers. Constructed alike, and as often, on all workers.

    Args:
      coordinator: The one that the program has given; None: it is found at the first use.
      directory: The checkpoint directory, for events.
      options: The manager's.

    Attributes:
      emit: Tells the listeners; nobody hears it before the first `connect`.
    """

    def __init__(
        self, coordinator: Coordinator | None, directory: str, options: ManagerOptions
    ) -> None:
        self._given = coordinator
        self._directory = directory
        self._options = options
        counter = _managers if coordinator is None else _count_of(coordinator)
        self._namespace = f"manager-{next(counter)}"
        self._calls: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self._found: tuple[Coordinator, Agreement] | None = None
        self.emit = Emitter()

    def connect(self) -> tuple[Coordinator, Agreement]:
        """Returns the job's coordinator, and what lets all workers decide alike.

        Raises:
          ConfigurationError: There are several workers, and nothing connects them.
        """
        if self._found is None:
            found = default_coordinator() if self._given is None else self._given
            agreement = Agreement(found, self._namespace, self._options.save_deadline)
            listeners = self._options.listeners
            self.emit = Emitter(listeners, self._directory, found.index, found.count)
            self._found = found, agreement
        return self._found

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator; see `connect`."""
        return self.connect()[0]

    def keys(self, kind: str) -> Keys:
        """Returns the names of the keys of the next call of that kind."""
        return Keys(self._namespace, kind, next(self._calls[kind]))


def _count_of(coordinator: Coordinator) -> Iterator[int]:
    return _managers_of.setdefault(coordinator, itertools.count())
