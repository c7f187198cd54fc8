"""The ownership of a directory: the chief process takes a term and checks it before each change.

A term is a file ``.distckpt/terms/00000007.json``, created exclusively, with a nonce in it. A
process owns the directory while the highest term is its own, by number and nonce. If the directory
is cleared or replaced by another one, the process's term is gone, whatever number the next term
has. All managers of one process share its term, so two of them (with different names) can use one
directory. A process takes its first term only if no other process has come since it restored; see
`restore_memory`.

A replaced chief, even one that was only paused, cannot do harm. It makes its pending folder and
then checks the term (`Ownership.enter`); its successor takes the term and then moves every older
pending folder away. So one of the two sees the other, provided that neither relies on an old
listing (`Storage.freshen`). Every rename of a commit starts in the pending folder, and every
removal is a rename into a folder that only this term uses. So they fail once the folder, or the
whole directory, has been moved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator

from distckpt.core import layout
from distckpt.errors import DirectoryClearedError, DistckptError, SupersededError
from distckpt.ownership import lost_directory, owner_record
from distckpt.ownership.held_terms import HeldTerm, HeldTerms
from distckpt.ownership.owner_record import Owner
from distckpt.ownership.restore_memory import RestoreMemory
from distckpt.ownership.seen_owner import SeenOwner
from distckpt.ownership.term_files import TermFiles
from distckpt.runtime import host
from distckpt.storage.base import Storage

_log = logging.getLogger("distckpt")


class Ownership:
    """One manager's ownership of one directory. Chief only.

    Args:
      storage: The directory's storage.
      directory: The directory's path.
      durable: Whether terms are forced to stable storage.
      held_terms: The terms of this process, which all its managers share. Default: no terms so far,
        as in another process.

    Attributes:
      memory: Remembers who owned the directory when this manager restored.
      names: The directory's listing, if the last `take` made one in a term held before; or None.
    """

    def __init__(
        self,
        storage: Storage,
        directory: str,
        *,
        durable: bool,
        held_terms: HeldTerms | None = None,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._terms = TermFiles(storage, directory, durable=durable)
        self._durable = durable
        self._held_terms = held_terms if held_terms is not None else HeldTerms()
        self._mine: HeldTerm | None = None
        self._has_committed = False
        self._successor: Owner | None = None
        self.names: list[str] | None = None
        self.memory = RestoreMemory(storage, directory, self._held_terms)

    @property
    def term(self) -> int | None:
        """The term in which this manager saves, or None."""
        return self._mine.term if self._mine else None

    @property
    def held_term(self) -> HeldTerm:
        """The held term in which this manager saves."""
        assert self._mine is not None, "take() comes first"
        return self._mine

    # --- Taking ---------------------------------------------------------------------------------

    def take(self) -> bool:
        """Makes sure that this process owns the directory, with the highest term mentioned there.

        Only between two saves: a save in flight ends in the term in which it began.

        Returns:
          Whether a new term was taken.

        Raises:
          SupersededError: Another process owns the directory, and took it after this process took
            its own term, or, without a term, after it restored.
          DirectoryClearedError: This manager has committed or restored there, and now nobody owns
            the directory. The next call takes it, because the program has been told.
          DirectoryError: There is no term left, or a private folder is a link.
          OSError: The directory cannot be read or written.
        """
        self.names = None
        with self._held_terms.lock(self._directory):
            if self._successor is not None:
                raise self._supersede(self._successor)
            last = self._last()
            seen = self.memory.of_first_save(last) if self._mine is None else None
            is_known = last is not None or seen is not None or self._held_terms.some
            found = self._look() if is_known else None
            current = self._held_terms.of(found)
            if current is not None:
                return self._go_on(current)
            if seen is not None and not seen.still_holds(found):
                raise self._lost(seen)
            # Instead of the cleared directory, a new manager may find a copy of another one.
            is_new = self._mine is None and (found is None or not found.may_run)
            if last is None or is_new:
                if not self._take_term(seen.still_holds if seen else lambda owner: True):
                    raise self._lost(seen)
            elif found is None:
                self._take_cleared()
            else:
                self._mine = last
                raise self._supersede(found)
            return True

    def _last(self) -> HeldTerm | None:
        """Returns the last term of this process in the directory; None if there is none."""
        if self._mine is not None and self._mine.pid != host.pid():
            self.memory.inherit(self._mine)  # it belongs to the parent process
            self._mine = None
        return self._mine or self._held_terms.last_at(self._directory)

    def _go_on(self, current: HeldTerm) -> bool:
        """Goes on in a term of this process, or takes a higher one if the directory mentions it.

        Returns:
          Whether a higher term was taken.
        """
        if current is not self._mine:  # another manager has taken it
            self._mine, self._has_committed = current, False
        if current.is_certain:
            is_surpassed, names = self._terms.surpassing(current.term)
            if not is_surpassed:
                self.names = names
                return False
        elif not self._follows_rightly(current):
            raise self._lost(self.memory.of_first_save(self._last()))
        # The mentioned term may be that of a successor, which must not be replaced.
        keeps = owner_record.newest_by(current.owner)  # the owner is the same process
        if not self._take_term(current.is_of, keeps):
            raise self._lost()
        return True

    def _take_cleared(self) -> None:
        """Takes a directory that nobody owns any more, after the program has been told."""
        if self._has_committed or not self._take_term(lambda owner: owner is None):
            raise self._lost()
        _log.warning(
            "%s was cleared or moved. This process takes it again, as term %d.",
            self._directory,
            self.term,
        )

    def take_from(self, before: Owner | None, *, only_deletes: bool = False) -> None:
        """Takes the term after that of `before`, which is known to have ended, for a command.

        Args:
          before: The owner that was found; None if there was none.
          only_deletes: Whether the newest checkpoint remains the newest. Then jobs that restored
            earlier may still save.

        Raises:
          DirectoryInUseError: Another process has taken the directory meanwhile.
          DirectoryError: There is no term left, or a private folder is a link.
          OSError: The directory cannot be written.
        """
        keeps = owner_record.newest_by(before) if only_deletes else None
        if not self._take_term(lambda owner: owner == before, keeps, is_command=True):
            raise lost_directory.just_taken(self._directory, self._terms.owner())

    def _take_term(
        self,
        may_follow: Callable[[Owner | None], bool],
        keeps: str | None = None,
        *,
        is_command: bool = False,
    ) -> bool:
        """Takes a term above all others, if `may_follow` accepts the owner; the rest as in `Owner`.

        It looks at the owner before, and again after, as the directory may have been replaced.
        """
        attempts: list[HeldTerm] = []

        def me(term: int) -> Owner:
            owner = owner_record.me(term, keeps, is_command=is_command)
            attempts.append(HeldTerm(owner, may_follow))
            self._held_terms.attempt(attempts[-1])  # even after an error, the file may exist
            return owner

        if not self._terms.take(me, lambda: may_follow(self._look())):
            return False
        if not self._follows_rightly(attempts[-1]):
            return False
        self._held_terms.add(self._directory, attempts[-1])
        self._mine, self._has_committed = attempts[-1], False
        self._held_terms.at_exit(self._release_at_exit)
        return True

    def _follows_rightly(self, taken: HeldTerm) -> bool:
        """Returns whether this process may own the directory; if not, gives the term back."""
        if taken.may_follow(self._terms.owner_before(taken.term)):
            return True
        last, successor = self._mine, self._successor
        self._mine = taken
        try:
            with contextlib.suppress(OSError, DistckptError):
                self._remove_terms([layout.term_name(taken.term)])
        finally:
            self._mine, self._successor = None if last is taken else last, successor
            self._held_terms.forget(taken)
        return False

    # --- Checking -------------------------------------------------------------------------------

    def check(self) -> None:
        """Makes sure that this process still owns the directory.

        Raises:
          SupersededError: Another process owns it; the text names host, process and time.
          DirectoryClearedError: Nobody owns it.
          SaveFailedError: Another manager of this process has taken a higher term.
          OSError: The directory cannot be read.
        """
        if self._mine is None or not self._mine.is_of(self._terms.owner()):
            raise self._lost()

    def check_again(self) -> None:
        """Like `check`, but never relies on an old listing."""
        self._terms.freshen()
        self.check()

    def check_cause(self) -> None:
        """Makes sure that an error was not caused by the loss of the directory.

        Raises:
          DistckptError: The directory was lost; see `check`.
        """
        with contextlib.suppress(OSError):
            if self._mine is not None:
                self.check()

    def committed(self) -> None:
        """Remembers a commit: if the directory is cleared, the program must be told."""
        self._has_committed = True

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Passes errors on to the program, which must be told only once of a cleared directory."""
        try:
            yield
        except DirectoryClearedError:
            self._has_committed = False
            seen = self.memory.of_first_save(self._last())
            if seen is not None and self._mine is None:
                self.memory.told(seen)
            raise

    def _look(self) -> Owner | None:
        """Returns who owns the directory now, without relying on an old listing."""
        self._terms.freshen()
        return self._terms.owner()

    def _lost(self, seen: SeenOwner | None = None) -> DistckptError:
        """Returns the error that says why this process does not own the directory.

        Args:
          seen: The owner at the restore, if a first save is refused because of it.
        """
        found = (seen.successor if seen else None) or self._terms.owner()
        if self._mine is None and seen is None:
            return lost_directory.superseded(self._directory, found or Owner(0), None, None)
        if found is None:
            return lost_directory.cleared(self._directory, self.term, seen)
        if self._held_terms.of(found) is not None:
            return lost_directory.taken_by_a_neighbour(self._directory)
        if seen is None:
            return self._supersede(found)
        self.memory.refused(seen, found)
        return lost_directory.superseded(self._directory, found, None, seen)

    def _supersede(self, by: Owner) -> SupersededError:
        """Remembers forever that another process has taken over the directory."""
        self._successor = by
        return lost_directory.superseded(self._directory, by, self.term, None)

    # --- Working --------------------------------------------------------------------------------

    def enter(self, folder: str) -> None:
        """Makes the pending folder named `folder` for this process.

        Raises:
          DistckptError: This process no longer owns the directory; see `check`.
          OSError: The directory cannot be written.
        """
        self.held_term.in_flight.add(folder)
        path = layout.join(self._directory, folder)
        self._make_and_check(path)
        if self._durable:  # files are moved out of it and into it, so it must not be lost
            self._storage.flush_directory(self._directory)

    def make_folder(self) -> str:
        """Makes a folder that only this term uses, and returns its path.

        A rename into it or out of it fails if another directory has replaced this process's.

        Raises:
          DistckptError: This process no longer owns the directory; see `check`.
          OSError: The directory cannot be written.
        """
        path = self.folder
        if self._storage.is_link(path):
            self._storage.remove(path)
        self._make_and_check(path)
        if self._durable:
            private = layout.join(self._directory, layout.PRIVATE_FOLDER)
            for parent in (layout.abandoned_root(self._directory), private, self._directory):
                self._storage.flush_directory(parent)
        return path

    @property
    def folder(self) -> str:
        """The path of the folder that `make_folder` makes."""
        mine = self.held_term
        return layout.abandoned_folder(self._directory, mine.term, mine.owner.nonce)

    def _make_and_check(self, path: str) -> None:
        # In this order, and without an old listing: see the module's docstring.
        self._storage.make_directory(path)
        try:
            self.check_again()
        except DistckptError:
            self._storage.remove_tree(path)
            raise

    def stage(self, path: str, data: bytes) -> None:
        """Writes a file in a pending folder of this process, to be renamed out of it.

        On storage without real folders, this succeeds even if a successor has moved the folder
        away. So the term is checked after it: a successor that comes later moves the file, too.

        Raises:
          DistckptError: This process no longer owns the directory; the file was removed again.
          OSError: The storage failed.
        """
        self._storage.write(path, data, durable=self._durable)
        if self._storage.has_folders:
            return
        try:
            self.check()
        except DistckptError:
            self._storage.remove(path)
            raise

    def forget_older(self) -> None:
        """Removes the files of lower terms; only the highest counts.

        Raises:
          DistckptError: This process no longer owns the directory; see `check`.
          OSError: The directory cannot be written.
        """
        if older := self._terms.older_than(self.held_term.term):
            self._remove_terms(older)

    def _remove_terms(self, names: Iterable[str]) -> None:
        """Removes files of terms from the directory in which this process holds its term."""
        with self.held_term.settling:
            self._terms.remove(names, self.make_folder())

    # --- Giving back ----------------------------------------------------------------------------

    def release(self) -> None:
        """Notes in the term's file that this process has ended. Best effort.

        It does not make a deleted directory again.
        """
        mine = self._mine
        if mine is None or mine.pid != host.pid() or not mine.settling.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(OSError, DistckptError):
                self.check()
                ended = dataclasses.replace(mine.owner, ended=host.now())
                self._terms.replace(ended, self.make_folder())
        finally:
            mine.settling.release()

    def _release_at_exit(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # no traceback on Ctrl-C
            self.release()
