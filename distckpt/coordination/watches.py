"""Waits for any of several keys, by calls that block on one key and cannot be cancelled.

TensorFlow's service can only wait for a single key. A call that its caller has given up stays open
in the service until the key is published, and then the value is sent once for each such call: after
300 short looks at a key, publishing 1 MB cost 300 MB. So each awaited key has one open call, in its
own thread, however many fetches watch it. If no thread is available, a fetch makes short calls
itself, at that cost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from distckpt.coordination.crew import Crew

# Seconds that one call lasts; then its thread ends, unless a fetch has waited for it since.
_CALL = 60.0
# Seconds after which an open call has certainly looked, even over a busy network.
_LOOK = 0.2
# Seconds that an answer waits for an answer to an earlier key whose call has just begun. A thread
# that has not begun its call yet, on a busy machine, is waited for as long as a first look takes.
_ORDER = 0.02
# Seconds in which a fetch without threads looks once at all its keys, and at one of them.
_ROUND, _GLANCE = 0.5, 0.02
# Seconds to stay away from a key that is being forgotten.
_FORGETTING = 0.05


class Forgotten(Exception):
    """The key was forgotten while the call was open."""


class Watches:
    """The keys that this process waits for. All methods may be called from any thread.

    Args:
      ask: ``ask(key, seconds)`` blocks until `key` is published and returns its value, or returns
        None after `seconds`. It may raise Forgotten; any other error is raised by the `fetch` that
        waits for the key. It is called from a thread of `crew` for each key.
      crew: Provides the threads.
      leave: How many of them to leave for other calls.
    """

    def __init__(self, ask: Callable[[str, float], str | None], crew: Crew, leave: int = 0) -> None:
        self._ask = ask
        self._crew = crew
        self._leave = leave
        self._changed = threading.Condition()
        self._watches: dict[str, _Watch] = {}
        self._closed = False

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """Does what `Coordinator.fetch` promises; a first look at a key takes up to 0.2 s."""
        found = self._wait(keys, timeout, 1)
        return found[0] if found else None

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """Does what `Coordinator.fetch_all` promises."""
        return self._wait(keys, timeout, len(keys))

    def _wait(self, keys: Sequence[str], timeout: float, most: int) -> list[tuple[str, str]]:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                watches = [watch for watch in map(self._watch, keys) if watch is not None]
                if len(watches) < len(keys):
                    break
                now = time.monotonic()
                found = _first_answered(watches, now)
                if found is not None:
                    rest = [] if most == 1 else [w for w in watches if w.value is not None]
                    return [self._deliver(one) for one in dict.fromkeys([found, *rest])]
                until = max(deadline, *(watch.since + _LOOK for watch in watches))
                if now >= until:
                    return []
                for watch in watches:
                    watch.wanted_until = max(watch.wanted_until, until)
                outrun = any(watch.answered for watch in watches)
                self._changed.wait(_ORDER if outrun else until - now)
        looked = self._look(keys, deadline)
        return [] if looked is None else [looked]

    def drop(self, keys: Sequence[str]) -> None:
        """Drops answers that were never fetched. Calls that are still open end by themselves."""
        with self._changed:
            for key in keys:
                if key in self._watches and self._watches[key].answered:
                    del self._watches[key]

    def close(self) -> None:
        """Ends all fetches, with None. Calls that are still open end by themselves."""
        with self._changed:
            self._closed = True
            self._watches.clear()
            self._changed.notify_all()

    def _watch(self, key: str) -> _Watch | None:
        """Returns the watch on `key`, possibly new; None if no thread is available for it."""
        if key not in self._watches:
            self._drop_stale()
            watch = _Watch(key)
            name = f"distckpt-wait-{key}"
            if not self._crew.do(lambda: self._run(watch), self._leave, name):
                return None
            self._watches[key] = watch
        return self._watches[key]

    def _look(self, keys: Sequence[str], deadline: float) -> tuple[str, str] | None:
        """Asks for one key after the other, on the caller's thread."""
        seconds = max(_GLANCE, min(_LOOK, _ROUND / len(keys)))
        while not self._closed:
            for key in keys:
                try:
                    value = self._ask(key, seconds)
                except Forgotten:
                    time.sleep(_FORGETTING)
                    continue
                if value is not None:
                    return key, value
            if time.monotonic() >= deadline:
                break
        return None

    def _run(self, watch: _Watch) -> None:
        """Keeps one call for the key of `watch` open, until it is answered or no longer wanted."""
        while True:
            value, failure, over = None, None, False
            watch.asked = watch.asked or time.monotonic()
            try:
                value = self._ask(watch.key, _CALL)
            except Forgotten:
                time.sleep(_FORGETTING)
                over = True
            except Exception as error:
                failure = error
            with self._changed:
                watch.value, watch.error = value, failure
                over = over or self._closed or watch.idle()
                if over and not watch.answered:
                    self._remove(watch)
                if over or watch.answered:
                    self._changed.notify_all()
                    return

    def _deliver(self, watch: _Watch) -> tuple[str, str]:
        self._remove(watch)  # a value can be large, and asking again costs little
        if watch.error is not None:
            raise watch.error
        assert watch.value is not None
        return watch.key, watch.value

    def _drop_stale(self) -> None:
        for watch in list(self._watches.values()):
            if watch.answered and watch.idle():
                self._remove(watch)

    def _remove(self, watch: _Watch) -> None:
        if self._watches.get(watch.key) is watch:
            del self._watches[watch.key]


class _Watch:
    """One awaited key, and the answer once there is one."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.since = time.monotonic()
        self.asked = 0.0  # when its call began
        self.wanted_until = self.since
        self.value: str | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.value is not None or self.error is not None

    def may_be_answered(self, now: float) -> bool:
        """Whether its first look may not be over yet."""
        return now < (self.asked + _ORDER if self.asked else self.since + _LOOK)

    def idle(self) -> bool:
        return time.monotonic() > self.wanted_until + _CALL


def _first_answered(watches: Sequence[_Watch], now: float) -> _Watch | None:
    """Returns the first answered watch, unless an earlier watch may be answered at any moment."""
    for watch in watches:
        if watch.answered:
            return watch
        if watch.may_be_answered(now):
            return None
    return None
