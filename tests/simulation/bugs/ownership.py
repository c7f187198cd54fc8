"""Bugs in the ownership of directories."""

from __future__ import annotations

import contextlib

from distckpt.core import layout
from distckpt.directory.attempt_cleanup import AttemptCleanup
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.ownership.fencing import Ownership
from distckpt.ownership.held_terms import HeldTerm, HeldTerms
from distckpt.ownership.mentioned_terms import MentionedTerms
from distckpt.ownership.restore_memory import RestoreMemory
from distckpt.ownership.term_files import TermFiles

from ..storage import SimulatedStorage
from .registry import Change, bug, nothing

CLEARED = ["clear", "clear_for_another_job", "move_away_for_another_job"]


@bug()
def term_is_ignored() -> list[Change]:
    """A chief that has been replaced continues."""
    return [(Ownership, "check", nothing)]


@bug(names=2, jobs=3, collective=False, late=False, lag=0.0, kinds=["second_job", "pause"])
def folders_of_a_replaced_chief_stay() -> list[Change]:
    """A successor settles the attempts it finds, but does not move their folders away."""

    def finish_all(self, names):
        for parent, name in self._unfinished(self._ownership.held_term, [], names):
            self._settle(layout.join(parent, name))

    return [(AttemptCleanup, "finish_all", finish_all)]


@bug()
def an_old_listing_is_believed() -> list[Change]:
    """The client of a network file system may show an old listing."""
    return [(SimulatedStorage, "freshen", nothing)]


@bug()
def every_chief_takes_the_same_term() -> list[Change]:
    """A chief that finds the file of the term takes it for its own."""

    def take(self, me, may=None):
        self._prepare()
        with contextlib.suppress(FileExistsError):
            self._create(me(1))
        return True

    def is_of(self, found):
        return found is not None and found.term == self.term

    return [(TermFiles, "take", take), (HeldTerm, "is_of", is_of), (HeldTerms, "of", is_first)]


def is_first(self, found):
    """Returns the only held term of this process, whichever process has written the file."""
    return next(iter(self._by_nonce.values()), None) if found is not None else None


@bug(kinds=CLEARED)
def the_number_of_a_term_is_enough() -> list[Change]:
    """The nonce is ignored: while there is no higher term, the directory still counts as ours."""

    def is_of(self, found):
        return found is None or found.term <= self.term

    return [(HeldTerm, "is_of", is_of)]


@bug(kinds=CLEARED)
def a_cleared_directory_is_never_taken_again() -> list[Change]:
    """A chief continues with a term that it has taken, though the file of the term is gone."""

    def take(self):
        if self._mine is None:
            return original(self)
        self.check()
        return False

    original = Ownership.take
    return [(Ownership, "take", take)]


@bug(kinds=CLEARED)
def a_cleared_directory_is_taken_again_in_silence() -> list[Change]:
    """An old job takes a directory that was cleared for a new job, before the new job comes."""

    def take(self):
        self._mine = self._successor = self.memory._seen = None
        return original(self)

    original = Ownership.take
    return [(Ownership, "take", take)]


@bug(kinds=["second_job", "pause"])
def a_first_save_takes_the_directory_from_whoever_came_since() -> list[Change]:
    """Before its first save, a job does not check whether a newer job came after its restore."""
    return [(RestoreMemory, "of_first_save", nothing)]


@bug(kinds=["copy_in"])
def a_copy_from_a_later_term_is_not_looked_for() -> list[Change]:
    """Where there are term files, the terms of the manifests are ignored."""

    def highest(self):
        self.names = self._storage.list(self._directory)
        return 0

    return [(MentionedTerms, "highest", highest)]


@bug(kinds=CLEARED)
def what_has_vanished_stays_on_the_list() -> list[Change]:
    """The list of checkpoints is read at the first save and never again."""

    def refresh(self, kind, anew, names):
        if kind is None:
            self._reload()

    return [(ManagedCheckpoints, "refresh", refresh)]


@bug(
    jobs=1,
    collective=False,
    late=False,
    lag=0.0,
    kinds=["clear_for_another_job", "move_away_for_another_job"],
)
def folders_are_moved_without_a_look_at_whose_they_are() -> list[Change]:
    """A chief whose directory was replaced treats running saves in the new directory as dead."""

    def make_folder(self):
        self._storage.make_directory(self.folder)
        return self.folder

    return [(Ownership, "make_folder", make_folder)]
