"""Checks that N processes can save to one directory together. All run this at the same time.

They meet in a folder of the directory. Then, in each check, each process does its part, waits for
the other processes, and judges all results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from distckpt.core import layout
from distckpt.doctor import clock_skew
from distckpt.doctor.file_rendezvous import FileRendezvous, Guest
from distckpt.doctor.finding import Finding, of_clocks
from distckpt.errors import DeadlineExceededError, explain
from distckpt.runtime import host
from distckpt.storage.base import Storage

_FILES = 16  # files that all try to create
_APART = 0.01  # seconds between two of them, so that all processes try at the same time
_LATE = 5.0  # seconds; seeing a file later than this is a problem


def compare(storage: Storage, directory: str, workers: int, seconds: float) -> Iterator[Finding]:
    """Yields one finding after the other.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL; it exists.
      workers: How many processes run the check.
      seconds: How long to wait for them, and then for each of their actions.

    Raises:
      DeadlineExceededError: Not all have come, or one has ended; the text names those present.
      ConfigurationError: Too many have come.
    """
    folder = layout.join(directory, f"{layout.DOCTOR_PREFIX}of-{workers}")
    meeting = FileRendezvous(storage, folder, workers, seconds)
    step = _Step(storage, folder, meeting)
    problem = ""
    try:
        yield from step.all()
    except DeadlineExceededError:  # which is an OSError, too
        raise
    except OSError as error:
        yield Finding(step.name, False, f"{explain(error)}.")
    finally:
        problem = step.clean_up()
    if problem:
        yield Finding("clean-up", False, problem)


class _Step:
    """One process's part in each check."""

    def __init__(self, storage: Storage, folder: str, meeting: FileRendezvous) -> None:
        self._storage = storage
        self._folder = folder
        self._meeting = meeting
        self._others: list[Guest] = []
        self.name = "workers"

    def all(self) -> Iterator[Finding]:
        guests = self._meeting.join()
        self._others = [guest for guest in guests if guest.token != self._meeting.me]
        yield Finding(self.name, True, f"all have come: {', '.join(sorted(map(str, guests)))}")
        yield from self._sight()
        self.name = "exclusive creation by all"
        yield self._create()
        self.name = "rename by another"
        yield self._rename()
        self._meeting.say_goodbye()

    def clean_up(self) -> str:
        """Removes this process's files; returns the problem if that fails."""
        try:
            if self._is_first():
                for path in [*self._created(), *self._renamed()]:
                    self._storage.remove(path)
            self._meeting.leave()
        except OSError as error:
            return f"{explain(error)}. The files of `distckpt doctor` cannot be removed."
        return ""

    def _sight(self) -> Iterator[Finding]:
        """Measures how soon a process sees another's file, and compares the clocks."""
        self.name = "shared"
        before, began = host.now(), host.monotonic()
        self._meeting.ask("ping", True)
        answers = self._meeting.ask("pong", host.now())
        after, took = host.now(), host.monotonic() - began
        late = took > _LATE
        text = f"each reads the files of all; a file is seen, and answered, in {took:.1f} s"
        advice = (
            ". Does the file system cache (NFS: actimeo, lookupcache)? That slows down each save."
        )
        yield Finding(self.name, True, text + advice * late, doubtful=late)
        self.name = "clocks"
        ahead = {str(g): clock_skew.apart(before, answers[g.token], after) for g in self._others}
        yield _of_clocks(ahead, took)

    def _create(self) -> Finding:
        """Checks that only one of several creators of a file succeeds."""
        mine = []
        for path in self._created():
            with contextlib.suppress(FileExistsError):
                self._storage.create(path, b"", durable=False)
                mine.append(path)
            host.sleep(_APART)
        won = [path for paths in self._meeting.ask("created", mine).values() for path in paths]
        twice = sorted({path for path in won if won.count(path) > 1})
        if twice:
            text = (
                f"{twice[0]} was created by {won.count(twice[0])} of them. Terms would not keep "
                "two jobs on the directory apart. Use another file system, or other mount options."
            )
            return Finding(self.name, False, text)
        text = f"of {_FILES} files that all tried to create, none was created twice"
        return Finding(self.name, True, text)

    def _rename(self) -> Finding:
        """Checks that all see a renamed file under its new name, and not under the old name."""
        source, target = self._renamed()
        if self._is_first():
            self._storage.write(target, b"old", durable=False)
            self._storage.write(source, b"new", durable=False)
        self._meeting.ask("ready", True)
        if self._is_first():
            self._storage.rename(source, target)
        self._meeting.ask("renamed", True)  # the first process publishes that it is done
        seen = self._see(source, target)
        all_see = self._meeting.ask("seen", seen)
        blind = [str(guest) for guest in self._others if not all_see[guest.token]]
        blind += ["this one"] * (not seen)
        if blind:
            text = (
                f"{', '.join(blind)} did not see it. A commit is a rename, which all must see. Use "
                "another file system, or other mount options."
            )
            return Finding(self.name, False, text)
        return Finding(self.name, True, "all see the new file under the name of the old one")

    def _see(self, source: str, target: str) -> bool:
        """Returns whether this process sees the rename in time."""
        deadline = host.monotonic() + _LATE
        while self._storage.read(target) != b"new" or self._storage.exists(source):
            if host.monotonic() >= deadline:
                return False
            host.sleep(_APART)
            self._storage.freshen(self._folder)
        return True

    def _is_first(self) -> bool:
        return self._meeting.group[:1] == (self._meeting.me,)

    def _created(self) -> list[str]:
        return [self._path(f"created-{number}") for number in range(_FILES)]

    def _renamed(self) -> tuple[str, str]:
        return self._path("source"), self._path("target")

    def _path(self, name: str) -> str:
        """Returns the path of a file for this run only."""
        return layout.join(self._folder, f"{self._meeting.group[0]}.{name}")


def _of_clocks(ahead: dict[str, float], sure: float) -> Finding:
    if not ahead:
        return Finding("clocks", True, "there is only one")
    guest, most = max(ahead.items(), key=lambda item: abs(item[1]))
    where = clock_skew.describe(most)
    text = f"that of {guest} is {where} this one's" if where != "as" else "all alike"
    return of_clocks("clocks", most, f"{text}, to within {sure:.1f} s")
