"""Puts the roles into a simulated world: its time, its chance, its names; and lets them hurry."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

from distckpt import errors
from distckpt.core import layout, listings, manifest_json
from distckpt.core.protocol import messages
from distckpt.core.tensorflow_format import bundle, checkpoint_state
from distckpt.messaging import progress
from distckpt.restoring import verifier
from distckpt.runtime import host
from distckpt.saving import save_session

from .process import Process
from .world import World

BIRTH = 1_700_000_000.0
_REMEMBERED = 20_000


@contextlib.contextmanager
def inside(world: World, current: Callable[[], Process]) -> Iterator[None]:
    """Lets `distckpt.runtime.host` answer for the process whose turn it is.

    Pure functions of `core` remember what they were given: a run asks the same over and over.
    """

    def token(size: int) -> str:
        process = current()
        process.tokens += 1
        return f"{process.pid:04x}{process.tokens:04x}".ljust(2 * size, "0")

    changes = [
        (host, "monotonic", lambda: world.now),
        (host, "now", lambda: BIRTH + world.now),
        (host, "sleep", lambda seconds: world.wait(world.now + seconds)),
        (host, "token", token),
        (host, "name", lambda: current().host),
        (host, "pid", lambda: current().pid),
        (manifest_json, "parse", _parse),
        (bundle, "read_index", _read_index),
        (checkpoint_state, "parse", _parse_pointer),
        (listings, "classify", lambda names: _classify(tuple(names))),
        (layout, "join", _join),
        (messages, "to_json", _to_json),
        (errors, "traceback", _NoTraceback),
        (save_session, "paused", contextlib.nullcontext),
        (progress, "telling", _telling),
        (verifier, "MOST_THREADS", 1),
    ]
    before = [getattr(module, name) for module, name, _ in changes]
    log = logging.getLogger("distckpt")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        for module, name, instead in changes:
            setattr(module, name, instead)
        yield
    finally:
        for (module, name, _), old in zip(changes, before, strict=True):
            setattr(module, name, old)
        log.setLevel(level)


@contextlib.contextmanager
def _telling(reporter: progress.Reporter, interval: float) -> Iterator[None]:
    """A process has one thread here: it says what is due when there is something to say."""
    reporter.at_once = True
    yield


class _NoTraceback:
    """Tracebacks take time, and no run looks at them."""

    @staticmethod
    def format_exception(*unused: object) -> list[str]:
        return []


_parse = functools.lru_cache(_REMEMBERED)(manifest_json.parse)
_read_index = functools.lru_cache(_REMEMBERED)(bundle.read_index)
_parse_pointer = functools.lru_cache(_REMEMBERED)(checkpoint_state.parse)
_to_json = functools.lru_cache(_REMEMBERED)(messages.to_json)
_join = functools.lru_cache(_REMEMBERED)(layout.join)
_classify = functools.lru_cache(_REMEMBERED)(listings.classify)
