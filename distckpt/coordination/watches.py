"""Waiting for any of several keys, on top of a call that blocks on one and cannot be taken back.

TensorFlow's service knows only "give me this key, I wait". A call that its caller has given up
stays open in the service until the key is published, and then the value is sent once for each such
call: after 300 short looks at a key, publishing 1 MB cost 300 MB. So there is one open call for
each key that somebody waits for, in a thread of its own, however many fetches watch it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

# Seconds that one call lasts; then its thread ends, unless somebody has waited for it since.
_CALL = 60.0
# A call that has been open for so many seconds has looked: time enough for a busy network.
_LOOK = 0.2
# An answer waits for so many seconds for one to an earlier key that was asked for just now.
_ORDER = 0.02
# Seconds to stay away from a key that is being forgotten.
_FORGETTING = 0.05


class Forgotten(Exception):
    """The key asked for has been forgotten while the call was open."""


class Watches:
    """The keys that this process waits for. All methods may be called from any thread.

    Args:
      ask: ``ask(key, seconds)`` blocks until `key` is published and returns its value, or returns
        None after `seconds`. It may raise Forgotten; any other error is raised by the `fetch` that
        waits for the key. It is called from threads of this class, one for each key.
    """

    def __init__(self, ask: Callable[[str, float], str | None]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._watches: dict[str, _Watch] = {}
        self._closed = False

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """Does what `Coordinator.fetch` promises; a first look at a key takes up to 0.2 s."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                watches = [self._watch(key) for key in keys]
                now = time.monotonic()
                found = _first_answered(watches, now)
                if found is not None:
                    return self._deliver(found)
                until = max(deadline, *(watch.since + _LOOK for watch in watches))
                if now >= until:
                    break
                for watch in watches:
                    watch.wanted_until = max(watch.wanted_until, until)
                outrun = any(watch.answered for watch in watches)
                self._changed.wait(_ORDER if outrun else until - now)
        return None

    def drop(self, keys: Sequence[str]) -> None:
        """Forgets answers that nobody has fetched. Calls that are still open end by themselves."""
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

    def _watch(self, key: str) -> _Watch:
        """Returns the watch on `key`, a new one if need be."""
        if key not in self._watches:
            self._drop_stale()
            self._watches[key] = _Watch(key)
            threading.Thread(
                target=self._run,
                args=(self._watches[key],),
                name=f"distckpt-wait-{key}",
                daemon=True,
            ).start()
        return self._watches[key]

    def _run(self, watch: _Watch) -> None:
        """Keeps one call for the key of `watch` open, until it is answered or nobody cares."""
        while True:
            value, failure, over = None, None, False
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
        self._remove(watch)  # a value can be large, and to ask again costs little
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
    """One key that is waited for, and the answer once there is one."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.since = time.monotonic()
        self.wanted_until = self.since
        self.value: str | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.value is not None or self.error is not None

    def idle(self) -> bool:
        return time.monotonic() > self.wanted_until + _CALL


def _first_answered(watches: Sequence[_Watch], now: float) -> _Watch | None:
    """Returns the first answered watch, unless one before it may answer any moment."""
    for watch in watches:
        if watch.answered:
            return watch
        if now < watch.since + _ORDER:
            return None
    return None
