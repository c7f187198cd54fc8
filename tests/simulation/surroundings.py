"""Puts the roles into a simulated world: its time, its chance, its names; and lets them hurry."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator

from distckpt import errors
from distckpt.calls import thread_turns
from distckpt.core import attempts, layout, listings, manifest_json
from distckpt.core.manifest import Manifest
from distckpt.core.protocol import messages
from distckpt.core.tensorflow_format import checkpoint_state, index_reader
from distckpt.directory import checkpoint_files
from distckpt.errors import ManifestError
from distckpt.messaging import progress, waiting
from distckpt.ownership import owner_record
from distckpt.restoring import verifier
from distckpt.runtime import host
from distckpt.saving import save_session, shard_writer

from .threads import SimulatedThreading, SimulatedTurn
from .world import World

BIRTH = 1_700_000_000.0
_REMEMBERED = 20_000


@contextlib.contextmanager
def inside(world: World) -> Iterator[None]:
    """Lets `distckpt.runtime.host` answer for the process whose turn it is.

    Pure functions remember what they were given: a run asks the same over and over.
    """

    def token(size: int) -> str:
        process = world.current.process
        process.tokens += 1
        return f"{process.pid:04x}{process.tokens:04x}".ljust(2 * size, "0")

    changes = [
        (host, "monotonic", lambda: world.now),
        (host, "now", lambda: BIRTH + world.now),
        (host, "sleep", lambda seconds: world.wait(world.now + seconds)),
        (host, "token", token),
        (host, "name", lambda: world.current.process.host),
        (host, "pid", lambda: world.current.process.pid),
        *_MEMORIES,
        (errors, "traceback", _NoTraceback),
        *((module, "paused", _not_paused) for module in _PAUSING),
        (progress, "telling", _telling),
        # No process of this machine is one of the simulated world.
        (owner_record, "_runs", lambda pid, since: False),
        (verifier, "MOST_THREADS", 1),
        (thread_turns, "threading", SimulatedThreading(world)),
        (thread_turns, "_Turn", functools.partial(SimulatedTurn, world)),
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


# Modules that pause Python's garbage collector for a moment, which takes time, too.
_PAUSING = (checkpoint_files, save_session, shard_writer, waiting)
_NOT_PAUSED = contextlib.nullcontext()


def _not_paused() -> contextlib.nullcontext[None]:
    return _NOT_PAUSED


# --- What pure functions remember ---------------------------------------------------------------

_remember = functools.lru_cache(_REMEMBERED)
_parse = manifest_json.parse
_whole = _remember(lambda data: _parse(data))
_brief = _remember(lambda data: dataclasses.replace(_whole(data), entries=()))
_classify = _remember(listings.classify)


def _parse_manifest(data: bytes, source: str = "", *, entries: bool = True) -> Manifest:
    """Remembers manifests by content; only errors say where it comes from."""
    try:
        return _whole(data) if entries else _brief(data)
    except ManifestError:
        return _parse(data, source, entries=entries)


_MEMORIES = [
    (manifest_json, "parse", _parse_manifest),
    (listings, "classify", lambda names: _classify(tuple(names))),
    *(
        (module, name, _remember(getattr(module, name)))
        for module, name in (
            (attempts, "parse_attempt_id"),
            (attempts, "parse_pending_name"),
            (index_reader, "read_index"),
            (checkpoint_state, "parse"),
            (layout, "join"),
            (layout, "parse_data_name"),
            (layout, "parse_term_name"),
            (layout, "parse_worker_prefix"),
            (listings, "owner_of"),
            (messages, "call_from_json"),
            (messages, "opening_from_json"),
            (messages, "outcome_from_json"),
            (owner_record, "parse"),
        )
    ),
]
