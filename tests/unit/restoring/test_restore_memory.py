"""A restore remembers who owned the directory, for the first save of the job."""

from __future__ import annotations

import pytest

from distckpt.errors import CheckpointDamagedError, ConfigurationError, SupersededError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import FaultyStorage

from ..kit import lab
from .groups import restoring


def test_who_comes_while_a_job_restores_is_noticed_at_its_first_save(run):
    newer = lab.Chief(run, max_to_keep=9)
    session, ownership = restoring(run, lambda name, count: newer.save("ckpt-4", 4))
    assert session.run() == "ckpt-3"
    with pytest.raises(SupersededError, match="since this job restored from it at"):
        ownership.take()


def test_whose_the_directory_is_is_looked_up_before_what_is_in_it(run):
    """A job that comes in between may save what is restored, or what must not be replaced."""
    storage = FaultyStorage(LocalStorage())
    session, ownership = restoring(run, storage=storage)
    done = len(storage.operations)
    session.run()
    listed = [o.paths[0] for o in storage.operations[done:] if o.kind == "list"]
    assert listed[0] == str(run / ".distckpt" / "terms")
    assert ownership.take()


def test_a_job_that_looks_again_remembers_whose_the_directory_is_by_then(run):
    """Another job has saved the checkpoint again in the meantime, so that reading it failed."""
    newer = lab.Chief(run, max_to_keep=9)
    attempts = []

    def restore(name, count):
        attempts.append(name)
        if len(attempts) == 1:
            newer.save(name, 9)
            raise CheckpointDamagedError("it was replaced")

    session, ownership = restoring(run, restore)
    assert session.run() == "ckpt-3"
    assert ownership.take()


def test_a_restore_that_fails_leaves_the_memory_as_it_was(run):
    def restore(name, count):
        raise ConfigurationError("another shape")

    session, ownership = restoring(run)
    session.run()
    lab.Chief(run, max_to_keep=9).save("ckpt-4", 4)
    session, _ = restoring(run, restore)
    session._memory = ownership.memory
    with pytest.raises(ConfigurationError):
        session.run()
    with pytest.raises(SupersededError):
        ownership.take()
