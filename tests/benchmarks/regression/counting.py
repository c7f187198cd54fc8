"""Counts what does not depend on the machine: storage operations, messages, files, system calls.

Commits differ in their internals, so only public methods are counted, whichever there are.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_lock = threading.Lock()
_inside = threading.local()

Counts = collections.Counter[str]


@contextlib.contextmanager
def counted(storage: type, coordinator: type) -> Iterator[Counts]:
    """Counts the calls of all objects of these two classes, until the end of the block."""
    counts: Counts = collections.Counter()
    with contextlib.ExitStack() as undo:
        for name in public_methods(storage):
            _replace(undo, storage, name, _counting(getattr(storage, name), counts, name))
        for name in ("publish", "fetch", "fetch_all"):
            if name in public_methods(coordinator):
                method = _counting_messages(getattr(coordinator, name), counts, name)
                _replace(undo, coordinator, name, method)
        yield counts


def public_methods(kind: type) -> list[str]:
    """Returns the names of the methods that `kind` has or inherits, without properties."""
    names = [name for name in dir(kind) if not name.startswith("_")]
    return [name for name in names if inspect.isfunction(inspect.getattr_static(kind, name))]


def _replace(undo: contextlib.ExitStack, kind: type, name: str, method: object) -> None:
    if name in vars(kind):
        undo.callback(setattr, kind, name, vars(kind)[name])
    else:
        undo.callback(delattr, kind, name)
    setattr(kind, name, method)


def _counting(method: Callable[..., Any], counts: Counts, name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def count(*args: Any, **named: Any) -> Any:
        with _lock:
            counts[f"storage.{name}"] += 1
        return method(*args, **named)

    return count


def _counting_messages(method: Callable[..., Any], counts: Counts, name: str) -> Callable[..., Any]:
    """Counts messages, not calls: how often a worker looks for one depends on the time it takes."""

    @functools.wraps(method)
    def count(*args: Any, **named: Any) -> Any:
        if getattr(_inside, "message", False):  # one of these methods may call another
            return method(*args, **named)
        _inside.message = True
        try:
            found = method(*args, **named)
        finally:
            _inside.message = False
        with _lock:
            if name == "publish":
                counts["messages published"] += 1
            elif found:
                counts["messages fetched"] += 1 if name == "fetch" else len(found)
        return found

    return count


def files(checkpoint: Path) -> dict[str, int]:
    """Returns the number and the bytes of a checkpoint's files; `checkpoint` is its prefix."""
    found = list(checkpoint.parent.glob(f"{checkpoint.name}.*"))
    return {"files": len(found), "bytes": sum(path.stat().st_size for path in found)}


def system_calls(command: Sequence[str], folder: Path) -> dict[str, int]:
    """Runs a command; returns its system calls on what is in `folder`.

    Empty without strace, or if strace fails.
    """
    if shutil.which("strace") is None:
        return {}
    with tempfile.NamedTemporaryFile("r") as log:
        # -y writes the paths of descriptors, too; -s 0 leaves out what is read and written.
        words = ["strace", "-f", "-y", "-s", "0", "-o", log.name, *command]
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode:
            return {}  # containers may forbid it
        return dict(parse_trace(log, str(folder)))


def parse_trace(lines: Iterator[str], folder: str) -> Mapping[str, int]:
    """Returns how many of strace's `lines` are system calls on `folder`, by the call's name."""
    counts: Counts = collections.Counter()
    for line in lines:
        name, bracket, arguments = line.partition(" ")[2].strip().partition("(")
        if bracket and name.isidentifier() and folder in arguments:
            counts[f"call of {name}"] += 1
    return counts
