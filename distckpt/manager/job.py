"""The job as one manager sees it: its workers, and the names of its managers and calls."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator

from distckpt.calls.agree_on import ChiefDecisions
from distckpt.calls.call_log import CallLog
from distckpt.coordination.base import Coordinator
from distckpt.coordination.choose import default_coordinator
from distckpt.listeners.dispatcher import Dispatcher
from distckpt.manager import stall_watch
from distckpt.messaging.keys import Keys
from distckpt.options import ManagerOptions

# The managers of each coordinator, and of the default one, are numbered in the order of their
# construction. The number says which manager a message is for.
_managers = itertools.count()
_managers_of: weakref.WeakKeyDictionary[Coordinator, Iterator[int]] = weakref.WeakKeyDictionary()


class Job:
    """One manager's connection to the other workers. All workers construct the same managers.

    Args:
      coordinator: The program's coordinator; None for the default one, chosen at the first use.
      directory: The checkpoint directory, for events.
      options: The manager's options.

    Attributes:
      emit: Passes an event to the listeners; there are none before the first use of the
        coordinator.
    """

    def __init__(
        self, coordinator: Coordinator | None, directory: str, options: ManagerOptions
    ) -> None:
        self._given = coordinator
        self._directory = directory
        self._options = options
        self._namespace = ""
        self._calls: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self.emit = Dispatcher()

    def register(self) -> None:
        """Gives this manager, now complete, its number among those of its coordinator."""
        counter: Iterator[int] = _managers
        if self._given is not None:
            counter = _managers_of.setdefault(self._given, itertools.count())
        self._namespace = f"manager-{next(counter)}"

    @functools.cached_property
    def coordinator(self) -> Coordinator:
        """The coordinator. Its first use connects the manager with the other workers.

        Raises:
          ConfigurationError: There are several workers, and nothing connects them.
        """
        found = default_coordinator() if self._given is None else self._given
        listeners = self._options.listeners
        self.emit = Dispatcher(listeners, self._directory, found.index, found.count)
        stall_watch.watch(self._directory, found.index)
        return found

    @functools.cached_property
    def log(self) -> CallLog:
        """The log of calls."""
        return CallLog(self.coordinator, self._namespace)

    @functools.cached_property
    def decisions(self) -> ChiefDecisions:
        """The chief's decisions."""
        return ChiefDecisions(self.coordinator, self._namespace, self._options.save_deadline)

    def keys(self, kind: str) -> Keys:
        """Returns the names of the keys of the next call of that kind."""
        return Keys(self._namespace, kind, next(self._calls[kind]))
