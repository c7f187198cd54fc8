"""The sources of two commits, each in a folder of its own."""

from __future__ import annotations

import compileall
import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

PACKAGE = "distckpt"
WORKING_TREE = "."


class UnknownCommitError(Exception):
    """There is no such commit, or it has no such package."""


class Commit(NamedTuple):
    """A commit, or the working tree.

    Attributes:
      hash: Its hash; "." for the working tree.
      title: Its hash and subject, for people.
    """

    hash: str
    title: str


def find(root: Path, name: str) -> Commit:
    """Returns the commit that the user calls `name`. Raises UnknownCommitError."""
    if name == WORKING_TREE:
        head = _git(root, "log", "-1", "--format=%h", "HEAD").strip()
        return Commit(name, f"the working tree, on top of {head}")
    line = _git(root, "log", "-1", "--format=%H %h %s", "--end-of-options", name, "--")
    if not line:
        raise UnknownCommitError(f"{name!r} is not a commit")
    full, title = line.strip().split(" ", 1)
    return Commit(full, title)


def base_of(root: Path, commit: Commit) -> Commit:
    """Returns what `commit` is compared with by default: main, or the commit before main's last."""
    main = find(root, "main")
    return find(root, "main~1") if commit.hash == main.hash else main


def check_out(root: Path, commit: Commit, folder: Path) -> None:
    """Puts the package, as of `commit`, into the new `folder`, and compiles it.

    It is a copy, not a worktree of Git, so nothing is left in the repository even if this process
    is killed. Raises UnknownCommitError if the commit has no such package.
    """
    folder.mkdir(parents=True)
    if commit.hash == WORKING_TREE:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / PACKAGE, folder / PACKAGE, ignore=ignored)
    else:
        data = _git_bytes(root, "archive", "--format=tar", commit.hash, PACKAGE)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
    # Both find compiled files, or else the first process of each would pay for the compiler.
    compileall.compile_dir(folder / PACKAGE, quiet=2)


def _git(root: Path, *words: str) -> str:
    return _git_bytes(root, *words).decode()


def _git_bytes(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True)
    if done.returncode:
        raise UnknownCommitError(done.stderr.decode().strip())
    return done.stdout
