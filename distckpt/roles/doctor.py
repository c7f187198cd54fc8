"""Looks whether a directory can serve for checkpoints: tries all that a save does to it.

It works in a folder of its own there, which goes again. Any process may call it, also while jobs
save to the directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distckpt.core import clocks, layout
from distckpt.roles import host
from distckpt.roles.finding import Finding, of_clocks
from distckpt.storage.base import Storage

_CONTENT = b"distckpt doctor\n" * 64
_MIB = 2**20
_LARGE = 64  # MiB that show how fast it is


def examine(storage: Storage, directory: str) -> Iterator[Finding]:
    """Yields one finding after the other; what comes after one that is not good is of cleaning up.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL. It is made if it is not there.
    """
    folder = layout.join(directory, f"{layout.DOCTOR_PREFIX}{host.token(8)}")
    problem = ""
    try:
        yield from _trials(storage, directory, folder)
    finally:
        problem = _clean_up(storage, folder)
    if problem:
        yield Finding("clean-up", False, problem)


def _trials(storage: Storage, directory: str, folder: str) -> Iterator[Finding]:
    one, two = layout.join(folder, "one"), layout.join(folder, "two")
    checks: list[tuple[str, Callable[[], str], str]] = [
        (
            "directory",
            lambda: _make(storage, directory, folder),
            "Give a directory that exists, or can be made, and the rights to write to it: a "
            "volume's group must be that of the process (Kubernetes: fsGroup).",
        ),
        (
            "write and read",
            lambda: _write(storage, one),
            "Look at the free space, quotas, and whether it is mounted read-only.",
        ),
        (
            "exclusive creation",
            lambda: _create(storage, two),
            "Epochs would not keep two jobs on the directory apart. Use another file system.",
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
            "take the newest checkpoints with it.",
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
            yield Finding(name, False, f"{error}. {advice}")
            return
        yield Finding(name, True, text)
    yield _clock(storage, one)


def _make(storage: Storage, directory: str, folder: str) -> str:
    new = not storage.exists(directory)
    storage.make_directory(folder)
    return f"{directory} {'has been made' if new else 'is there'}"


def _write(storage: Storage, path: str) -> str:
    storage.write(path, _CONTENT, durable=False)
    if storage.read(path) != _CONTENT:
        raise OSError(f"{path} has another content than was written")
    return f"{len(_CONTENT)} bytes came back as they were"


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
        return f"not tried, as only {free / _MIB:.0f} MiB are free"
    data = host.token(_MIB // 2).encode() * _LARGE  # nothing that a file system could compress
    began = host.monotonic()
    storage.write(path, data, durable=True)
    seconds = max(host.monotonic() - began, 1e-6)
    return f"{_LARGE} MiB, flushed, in {seconds:.2f} s: {_LARGE / seconds:.0f} MiB/s"


def _clock(storage: Storage, path: str) -> Finding:
    """Compares this host's clock with the one that gives files their times."""
    try:
        before = host.now()
        storage.write(path, b"", durable=False)
        written, after = storage.modified(path), host.now()
    except OSError as error:
        return Finding("clock", False, f"{error}")
    if written is None:
        return Finding("clock", True, "the file system tells no times to compare with")
    ahead = -clocks.apart(before, written, after)
    return of_clocks("clock", ahead, f"{clocks.describe(ahead)} that of the file system")


def _clean_up(storage: Storage, folder: str) -> str:
    """Removes the folder; returns what is wrong if that cannot be done."""
    try:
        storage.remove_tree(folder)
    except NotADirectoryError:
        return ""  # it was never made: the directory is a file
    except OSError as error:
        return (
            f"{error}. So old checkpoints could not be deleted, either. Give the rights to remove "
            f"files there; then remove {folder}, or let `distckpt gc` do it."
        )
    return ""
