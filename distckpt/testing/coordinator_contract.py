"""Runs the clauses of the coordination contract for adapters that work in threads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NoReturn

import pytest

from distckpt.coordination.base import Coordinator
from distckpt.testing.coordinator_clauses import CLAUSES, DEATH_CLAUSES, Clause, DeathClause
from distckpt.testing.threads import run_in_threads


class CoordinatorContract:
    """Runs the clauses with one thread for each worker; a subclass provides the coordinators."""

    @pytest.fixture
    def coordinators(self) -> Sequence[Coordinator]:
        """Returns the coordinators of a new job of three workers, by index."""
        raise NotImplementedError("a subclass of CoordinatorContract provides `coordinators`")

    def kill(self, coordinators: Sequence[Coordinator], index: int) -> None:
        """Simulates the death of a worker's process."""
        raise NotImplementedError("a subclass of CoordinatorContract implements `kill`")

    @pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
    def test_clause(self, coordinators: Sequence[Coordinator], clause: Clause) -> None:
        """Every clause holds."""
        run_by_all(clause, coordinators)

    @pytest.mark.parametrize("clause", DEATH_CLAUSES, ids=lambda clause: clause.__name__)
    def test_death(self, coordinators: Sequence[Coordinator], clause: DeathClause) -> None:
        """Every clause on death holds."""

        def run(me: Coordinator, key: str) -> None:
            def die() -> NoReturn:
                self.kill(coordinators, me.index)
                raise _DiedError

            clause(me, key, die)

        run_by_all(run, coordinators)


class _DiedError(Exception):
    """Ends the thread of a worker that has died."""


def run_by_all(clause: Clause, coordinators: Sequence[Coordinator]) -> None:
    """Runs `clause` for all workers at once; raises the first error of any worker."""

    def run(me: Coordinator) -> None:
        with contextlib.suppress(_DiedError):
            clause(me, "job")

    run_in_threads(run, coordinators)
