"""Waits for any of many keys, by a few calls that block on one key and cannot be cancelled.

TensorFlow's service can only wait for a single key. A call that its caller has given up stays open
in the service until the key is published, and then the value is sent once for each such call: after
300 short looks at a key, publishing 1 MB cost 300 MB. So a few threads keep one call each open, for
the first of the awaited keys, however many fetches wait for these. When a key is published, its
thread takes the next one, so that a few threads read the answers of any number of workers.

The fetch itself looks at the keys that no thread has taken, by short calls: at most some twenty a
second in vain, and at each key at intervals that double. So a key far back in the list may be found
late while the keys before it stay absent. If no thread is free for a fetch, it looks all the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from distckpt.coordination.crew import Crew
from distckpt.coordination.watched_key import LOOK, ORDER, WatchedKey, first_answered

# Seconds in which a fetch without threads looks once at all its keys, and at one of them.
_ROUND, _GLANCE = 0.5, 0.02
# The shortest look of a fetch that may not wait and has many keys, and how long all looks may take.
_BRIEF, _LOOKING = 0.005, 3.0
# Seconds between two looks in vain of a fetch with threads; how long it may overrun for looks.
_PACE, _OVERRUN = 0.05, 0.25
# So many earlier keys that no thread has taken are looked at before a later one is returned.
_FEW = 8
# Seconds to stay away from a key that is being forgotten.
_FORGETTING = 0.05


class Forgotten(Exception):
    """The key was forgotten while the call was open."""


class Watches:
    """The keys that this process waits for. All methods may be called from any thread.

    Args:
      ask: ``ask(key, seconds)`` blocks until `key` is published and returns its value, or returns
        None after `seconds`. It may raise Forgotten; any other error is raised by the `fetch` that
        waits for the key. It is called from threads of `crew`, and from those that fetch.
      crew: Provides the threads.
      most: How many of its threads wait for keys at a time, for all who use the crew.
    """

    def __init__(self, ask: Callable[[str, float], str | None], crew: Crew, most: int) -> None:
        self._ask = ask
        self._crew = crew
        self._most = most
        self._changed = threading.Condition(threading.Lock())
        self._watches: dict[str, WatchedKey] = {}
        self._looked = 0.0  # when a fetch last looked in vain
        self._closed = False

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """Does what `Coordinator.fetch` promises; a first look at a key takes up to 0.2 s."""
        found = self._wait(_Fetch(keys, timeout, every=False))
        return found[0] if found else None

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """Does what `Coordinator.fetch_all` promises."""
        return self._wait(_Fetch(keys, timeout, every=True))

    def _wait(self, fetch: _Fetch) -> list[tuple[str, str]]:
        with self._changed:
            return self._find(fetch)

    def _find(self, fetch: _Fetch) -> list[tuple[str, str]]:
        self._drop_stale()
        while not self._closed:
            watches = self._watch(fetch)
            now = time.monotonic()
            found = first_answered(watches, now)
            due = fetch.before(found) if found else fetch.due(now, self._looked + _PACE)
            if due is not None:
                self._look(due, fetch)
            elif found is not None:
                rest = [w for w in watches if w.value is not None] if fetch.every else []
                return [self._deliver(one) for one in dict.fromkeys([found, *rest])]
            elif now >= fetch.until():
                return []
            else:
                self._changed.wait(fetch.pause(now, self._looked + _PACE))
        return []

    def drop(self, keys: Sequence[str]) -> None:
        """Drops answers that were never fetched. Calls that are still open end by themselves."""
        with self._changed:
            for key in keys:
                if key in self._watches and self._watches[key].taken is None:
                    del self._watches[key]

    def stop_waiting(self, keys: Sequence[str]) -> None:
        """Lets the threads of these keys take others, as soon as their calls end."""
        with self._changed:
            for key in keys:
                if key in self._watches:
                    self._watches[key].wanted_until = 0.0

    def close(self) -> None:
        """Ends all fetches, with []. Calls that are still open end by themselves."""
        with self._changed:
            self._closed = True
            self._watches.clear()
            self._changed.notify_all()

    def _watch(self, fetch: _Fetch) -> list[WatchedKey]:
        """Returns the watched keys of a fetch; gives those that nobody looks at to free threads."""
        is_free, watches = True, []
        for key in fetch.keys:
            watch = self._watches.get(key)
            if watch is None:
                watch = self._watches[key] = WatchedKey(key)
            watch.wanted_until = max(watch.wanted_until, fetch.deadline)
            if is_free and watch.is_left:
                is_free = self._hire(watch)
            watches.append(watch)
        fetch.watches = watches
        return watches

    def _hire(self, watch: WatchedKey) -> bool:
        if not self._crew.do(lambda: self._run(watch), self._most, _name(watch)):
            return False
        watch.taken = time.monotonic()
        return True

    def _run(self, first: WatchedKey) -> None:
        """Keeps a call open for one key after the other, as long as there are any."""
        watch: WatchedKey | None = first
        while watch is not None:
            threading.current_thread().name = _name(watch)
            value, failure, forgotten = None, None, False
            watch.asked = watch.asked or time.monotonic()
            try:
                value = self._ask(watch.key, watch.call_seconds())
            except Forgotten:
                time.sleep(_FORGETTING)
                forgotten = True
            except Exception as error:
                failure = error
            with self._changed:
                watch.answer(value, failure)
                watch = self._after(watch, forgotten=forgotten)

    def _after(self, watch: WatchedKey, *, forgotten: bool) -> WatchedKey | None:
        """Returns the key that the thread of `watch` watches next; None if it ends."""
        now = time.monotonic()
        others = (w for w in self._watches.values() if w.is_left and w.may_be_wanted(now))
        following = None if self._closed or watch.error is not None else next(others, None)
        over = self._closed or forgotten or watch.is_stale(now)
        if not over and not watch.answered and (watch.may_be_wanted(now) or following is None):
            return watch
        watch.taken = None
        if not watch.answered:
            self._remove(watch)
        self._changed.notify_all()
        if following is not None:
            following.taken = now
        return following

    def _look(self, watch: WatchedKey, fetch: _Fetch) -> None:
        """Looks at a key once, on the thread of the caller, who holds the lock."""
        seconds = fetch.glance()
        value, failure = None, None
        self._changed.release()
        try:
            value = self._ask(watch.key, seconds)
        except Forgotten:
            time.sleep(_FORGETTING)
        except Exception as error:
            failure = error
        finally:
            self._changed.acquire()
        watch.answer(value, failure)
        watch.looked = time.monotonic()
        fetch.has_looked(watch)
        if not watch.answered:
            self._looked = watch.looked

    def _deliver(self, watch: WatchedKey) -> tuple[str, str]:
        self._remove(watch)  # a value can be large, and asking again costs little
        if watch.error is not None:
            raise watch.error
        assert watch.value is not None
        return watch.key, watch.value

    def _drop_stale(self) -> None:
        now = time.monotonic()
        for watch in list(self._watches.values()):
            if watch.taken is None and watch.is_stale(now):
                self._remove(watch)

    def _remove(self, watch: WatchedKey) -> None:
        if self._watches.get(watch.key) is watch:
            del self._watches[watch.key]


class _Fetch:
    """One call of `fetch` or `fetch_all`: which keys it looks at itself, and when."""

    def __init__(self, keys: Sequence[str], timeout: float, *, every: bool) -> None:
        self.keys = keys
        self.every = every
        self.began = time.monotonic()
        self.deadline = self.began + timeout
        self.watches: list[WatchedKey] = []
        self._is_look = timeout <= 0
        self._seen: set[str] = set()
        self._last: WatchedKey | None = None

    def has_looked(self, watch: WatchedKey) -> None:
        """Notes that it has looked at a key."""
        self._seen.add(watch.key)
        self._last = watch

    def glance(self) -> float:
        """Returns how long to look at a key."""
        if self._is_look and len(self.keys) > _ROUND / _GLANCE:
            return max(_BRIEF, _ROUND / len(self.keys))
        if self._is_helped:
            return _GLANCE
        return max(_GLANCE, min(LOOK, _ROUND / len(self.keys)))

    def before(self, found: WatchedKey) -> WatchedKey | None:
        """Returns the key to look at before `found` is returned.

        It may be an earlier one, which comes first if it is published, too. Where all keys are
        wanted, it is the next one, as long as there is an answer at each look.
        """
        left = [w for w in self.watches if w.is_left and w.key not in self._seen]
        if self.every:
            is_run = self._is_look or (self._last is not None and self._last.answered)
            return _longest_ago(left) if is_run and self._has_time else None
        place = self.watches.index(found)
        earlier = [w for w in self.watches[:place] if w in left]
        return earlier[0] if 0 < len(earlier) <= _FEW else None

    def due(self, now: float, earliest: float) -> WatchedKey | None:
        """Returns the key to look at now; None if it is too early for all."""
        left = [w for w in self.watches if w.is_left]
        unseen = [w for w in left if w.key not in self._seen]
        if self._is_look:
            return _longest_ago(unseen) if self._has_time else None
        if not self._is_helped:
            if now >= self.deadline:
                left = unseen if now < self.deadline + _OVERRUN else []
        elif now >= self.deadline:
            left = [w for w in left if not w.looked] if now < self.deadline + _OVERRUN else []
        else:
            left = [w for w in left if now >= w.next_look()] if now >= earliest else []
        return _longest_ago(left)

    def until(self) -> float:
        """Returns when to give up: at the deadline, but not before each thread has looked once."""
        looks = [min(w.taken, self.began) + LOOK for w in self.watches if w.taken is not None]
        return max(self.deadline, *looks) if looks else self.deadline

    def pause(self, now: float, earliest: float) -> float:
        """Returns how long to wait until something may be due."""
        if any(w.answered for w in self.watches):  # it is held back by an earlier key
            return ORDER
        looks = [max(w.next_look(), earliest) for w in self.watches if w.is_left]
        return max(0.001, min([self.until(), *looks]) - now)

    @property
    def _has_time(self) -> bool:
        return time.monotonic() < (self.began + _LOOKING if self._is_look else self.deadline)

    @property
    def _is_helped(self) -> bool:
        return any(w.taken is not None for w in self.watches)


def _longest_ago(watches: Sequence[WatchedKey]) -> WatchedKey | None:
    """Returns the key that was looked at the longest ago, or the first of those that never were."""
    return min(watches, key=lambda w: w.looked, default=None)


def _name(watch: WatchedKey) -> str:
    return f"distckpt-wait-{watch.key}"
