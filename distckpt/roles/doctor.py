"""Looks whether a directory can serve for checkpoints: tries all that a save does to it.

It works in a folder of its own there, which goes again. Any process may call it, also while jobs
save to the directory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from distckpt.core import layout
from distckpt.roles import host
from distckpt.storage.base import Storage

_CONTENT = b"distckpt doctor\n" * 64


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
      check: What was looked at.
      good: Whether it is as it should be.
      text: What was found, and if it is not good, what to do.
    """

    check: str
    good: bool
    text: str


def examine(storage: Storage, directory: str) -> Iterator[Finding]:
    """Yields one finding after the other; after one that is not good, none comes any more.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL. It is made if it is not there.
    """
    folder = layout.join(directory, f"{layout.DOCTOR_PREFIX}{host.token(8)}")
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
    ]
    try:
        for name, check, advice in checks:
            try:
                text = check()
            except OSError as error:
                yield Finding(name, False, f"{error}. {advice}")
                return
            yield Finding(name, True, text)
    finally:
        _clean_up(storage, folder)


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


def _clean_up(storage: Storage, folder: str) -> None:
    try:
        storage.remove_tree(folder)
    except OSError:
        return  # the finding has said what is wrong with the directory
