"""The terms that one process has taken, in all directories.

A held term is identified by its nonce, not by the directory's path. So two paths to one directory
(a link, a bind mount) are the same directory, and a directory that replaces a cleared or moved one
is a different one.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

from distckpt.core import attempts
from distckpt.ownership.owner_record import Owner
from distckpt.ownership.seen_owner import SeenOwner
from distckpt.runtime import host


class HeldTerm:
    """A term that this process has taken. All its managers of that directory share it.

    A lost term never becomes valid again. If the process takes the directory again, it gets another
    term, so that a save begun in the old term cannot end in the new one.

    Args:
      owner: The content of the term's file.
      may_follow: Whether this process may take the directory after a given owner.

    Attributes:
      owner: The content of the term's file.
      may_follow: Whether this process may take the directory after a given owner.
      pid: The process id, which differs in a forked child.
      is_certain: Whether the file was written without an error, after an owner that may be
        followed. If not, a new term is taken, or this one is given back.
      in_flight: The names of the pending folders that this process uses.
      settling: A lock, held during the cleanup of unfinished attempts, because managers share the
        directory.
    """

    def __init__(
        self, owner: Owner, may_follow: Callable[[Owner | None], bool] = lambda before: True
    ) -> None:
        self.owner = owner
        self.may_follow = may_follow
        self.pid = host.pid()
        self.is_certain = False
        self.in_flight: set[str] = set()
        self.settling = threading.Lock()
        self._sequence = 0
        self._lock = threading.Lock()
        self._newest: dict[str, str] = {}
        self._committing: dict[str, str] = {}

    @property
    def term(self) -> int:
        """The term's number."""
        return self.owner.term

    def is_of(self, found: Owner | None) -> bool:
        """Returns whether `found`, the owner of a directory, is this process in this term."""
        return found is not None and (found.term, found.nonce) == (self.term, self.owner.nonce)

    def next_attempt(self) -> str:
        """Returns a new attempt id: the term, a count, and a random part."""
        with self._lock:
            self._sequence += 1
            return attempts.attempt_id(self.term, self._sequence, host.token(4))

    # Two attempts of one checkpoint may choose the same names for their data files. So none is
    # opened while another one commits, and of two open ones only the later may commit.

    def open(self, name: str, folder: str) -> bool:
        """Makes the attempt with this pending folder the newest to save `name`.

        Returns:
          False if another attempt to save `name` is just being committed.
        """
        with self._lock:
            if name in self._committing:
                return False
            self._newest[name] = folder
            return True

    def begin_commit(self, name: str, folder: str) -> bool:
        """Returns whether the attempt may commit: no later one of the same name was opened."""
        with self._lock:
            if self._newest.get(name) != folder:
                return False
            self._committing[name] = folder
            return True

    def end_commit(self, name: str, folder: str) -> None:
        """Ends what `begin_commit` has begun; does nothing if it has not."""
        with self._lock:
            if self._committing.get(name) == folder:
                del self._committing[name]

    def close(self, name: str, folder: str) -> None:
        """Forgets an attempt that has ended."""
        with self._lock:
            self.in_flight.discard(folder)
            if self._newest.get(name) == folder:
                del self._newest[name]


class HeldTerms:
    """All terms that a process has taken. Thread-safe.

    Args:
      at_exit: Registers a function to be called when the process ends.
    """

    def __init__(self, at_exit: Callable[[Callable[[], None]], object] = lambda give_back: None):
        self.at_exit = at_exit
        self._by_nonce: dict[tuple[int, str], HeldTerm] = {}
        self._by_path: dict[tuple[int, str], HeldTerm] = {}
        self._seen: dict[tuple[int, str], SeenOwner] = {}
        self._locks: defaultdict[tuple[int, str], threading.Lock] = defaultdict(threading.Lock)

    @property
    def some(self) -> bool:
        """Whether this process has taken a term, or tried to."""
        return bool(self._by_nonce)

    def lock(self, path: str) -> threading.Lock:
        """Returns the lock for taking the directory at `path`.

        A forked child has a lock of its own: nobody there would release one that its parent holds.
        """
        return self._locks[host.pid(), path]

    def attempt(self, held_term: HeldTerm) -> None:
        """Remembers a term whose file is about to be written."""
        self._by_nonce[held_term.pid, held_term.owner.nonce] = held_term

    def forget(self, held_term: HeldTerm) -> None:
        """Forgets a term that was given back: its file, if it is still there, is a stranger's."""
        self._by_nonce.pop((held_term.pid, held_term.owner.nonce), None)

    def add(self, path: str, held_term: HeldTerm) -> None:
        """Remembers that the file of a term is written in the directory now at `path`."""
        held_term.is_certain = True
        self._by_path[held_term.pid, path] = held_term

    def of(self, found: Owner | None) -> HeldTerm | None:
        """Returns the term of this process that matches `found`, a directory's owner, or None."""
        held_term = self._by_nonce.get((host.pid(), found.nonce)) if found is not None else None
        return held_term if held_term is not None and held_term.is_of(found) else None

    def last_at(self, path: str) -> HeldTerm | None:
        """Returns the last term that this process has taken at a path, or None."""
        return self._by_path.get((host.pid(), path))

    def saw(self, path: str, seen: SeenOwner) -> None:
        """Remembers who owned the directory at `path` when this process restored from it."""
        self._seen[host.pid(), path] = seen

    def seen_at(self, path: str) -> SeenOwner | None:
        """Returns the owner at the last restore from a path; None if there was no restore."""
        return self._seen.get((host.pid(), path))
