"""Checks that a directory can hold checkpoints, with all file operations of a save.

It works in its own folder there, which it removes. Any process may call it, also while jobs save to
the directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distckpt.core import layout
from distckpt.doctor import clock_skew
from distckpt.doctor.finding import Finding, of_clocks
from distckpt.errors import explain
from distckpt.runtime import host
from distckpt.storage import obstacles
from distckpt.storage.base import Storage

_CONTENT = b"distckpt doctor\n" * 64
_MIB = 2**20
_LARGE = 64  # MiB written to measure the speed


def examine(storage: Storage, directory: str) -> Iterator[Finding]:
    """Yields the findings; after one that is not good, only the clean-up may follow.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL. It is made if it does not exist.
    """
    folder = layout.join(directory, f"{layout.DOCTOR_PREFIX}{host.token(8)}")
    problem = ""
    try:
        yield from _trials(storage, directory, folder)
    finally:
        problem = _clean_up(storage, folder)
    if problem and obstacles.find(storage, directory) is None:  # else the folder was never made
        yield Finding("clean-up", False, problem)


def _trials(storage: Storage, directory: str, folder: str) -> Iterator[Finding]:
    one, two = layout.join(folder, "one"), layout.join(folder, "two")
    checks: list[tuple[str, Callable[[], str], str]] = [
        (
            "directory",
            lambda: _make(storage, directory, folder),
            "Give a directory that exists or can be made, and write access to it: the volume's "
            "group must be the process's (Kubernetes: fsGroup).",
        ),
        (
            "write and read",
            lambda: _write(storage, one),
            "Look at the free space, quotas, and whether it is mounted read-only.",
        ),
        (
            "exclusive creation",
            lambda: _create(storage, two),
            "Terms would not keep two jobs on the directory apart. Use another file system.",
        ),
        (
            "rename",
            lambda: _rename(storage, one, two),
            "A commit is a rename that replaces a file. Use another file system.",
        ),
        (
            "flush",
            lambda: _flush(storage, folder, two),
            "Use another file system; or ManagerOptions(durable=False), if a power failure may "
            "destroy the newest checkpoints.",
        ),
        (
            "speed",
            lambda: _speed(storage, directory, one),
            "Look at the free space, and at quotas.",
        ),
    ]
    for name, check, advice in checks:
        try:
            text = check()
        except OSError as error:
            obstacle = obstacles.find(storage, directory)
            yield Finding(name, False, obstacle or f"{explain(error)}. {advice}")
            return
        yield Finding(name, True, text)
    yield _clock(storage, one)


def _make(storage: Storage, directory: str, folder: str) -> str:
    new = not storage.exists(directory)
    storage.make_directory(folder)
    return f"{directory} {'has been made' if new else 'exists'}"


def _write(storage: Storage, path: str) -> str:
    storage.write(path, _CONTENT, durable=False)
    if storage.read(path) != _CONTENT:
        raise OSError(f"{path} does not have the written content")
    return f"{len(_CONTENT)} bytes were read back unchanged"


def _create(storage: Storage, path: str) -> str:
    storage.create(path, b"first", durable=False)
    try:
        storage.create(path, b"second", durable=False)
    except FileExistsError:
        return "a file that exists is not created again"
    raise OSError(f"{path} was created twice")


def _rename(storage: Storage, source: str, target: str) -> str:
    storage.rename(source, target)
    if storage.exists(source) or storage.read(target) != _CONTENT:
        raise OSError(f"{source} was renamed to {target}, which has not replaced it")
    return "a file that exists is replaced"


def _flush(storage: Storage, folder: str, path: str) -> str:
    began = host.monotonic()
    storage.flush(path)
    storage.flush_directory(folder)
    return f"file and folder, in {1000 * (host.monotonic() - began):.1f} ms"


def _speed(storage: Storage, directory: str, path: str) -> str:
    free = storage.free(directory)
    if free is not None and free < 4 * _LARGE * _MIB:
        return f"not measured, as only {free / _MIB:.0f} MiB are free"
    data = host.token(_MIB // 2).encode() * _LARGE  # so that no file system can compress it
    began = host.monotonic()
    storage.write(path, data, durable=True)
    seconds = max(host.monotonic() - began, 1e-6)
    return f"{_LARGE} MiB, flushed, in {seconds:.2f} s: {_LARGE / seconds:.0f} MiB/s"


def _clock(storage: Storage, path: str) -> Finding:
    """Compares this host's clock with the file system's."""
    try:
        before = host.now()
        storage.write(path, b"", durable=False)
        written, after = storage.modified(path), host.now()
    except OSError as error:
        return Finding("clock", False, f"{explain(error)}.")
    if written is None:
        return Finding("clock", True, "the file system has no times to compare with")
    ahead = -clock_skew.apart(before, written, after)
    return of_clocks("clock", ahead, f"{clock_skew.describe(ahead)} that of the file system")


def _clean_up(storage: Storage, folder: str) -> str:
    """Removes the folder; returns the problem if that fails."""
    try:
        storage.remove_tree(folder)
    except OSError as error:
        return (
            f"{explain(error)}. So old checkpoints could not be deleted, either. Grant the right "
            f"to remove files there; then remove {folder}, or let `distckpt gc` do it."
        )
    return ""
