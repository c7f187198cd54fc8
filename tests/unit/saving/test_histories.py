"""Random histories of processes that save, die, fail and are replaced, one after the other.

After every step the newest checkpoint must be the one that was acknowledged last, or one whose save
was cut off later; and what has once been seen to be the newest must not be lost again. In half of
the histories plain TensorFlow saves in between, to the same names.
"""

from __future__ import annotations

import dataclasses
import errno
import pathlib
import random
import time

import pytest

from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.errors import CommitUnknownError, DistckptError
from distckpt.testing.faulty_storage import (
    AFTER,
    BEFORE,
    DURING,
    Fault,
    FaultyStorage,
    ProcessDied,
    Where,
    dies,
    fails,
)

from ..kit import lab


@dataclasses.dataclass(frozen=True)
class Step:
    """One save: by a new process or not, and what goes wrong at which operation."""

    new_process: bool
    name: str
    number: int
    workers: int
    goes_wrong: str
    moment: str
    operation: int
    plain: bool = False


def steps(chance, *, plain=False):
    for number in range(1, chance.randint(4, 10)):
        yield Step(
            new_process=chance.random() < 0.3,
            name=f"ckpt-{chance.randint(1, 4)}",
            number=number,
            workers=chance.choice([1, 1, 2, 3]),
            goes_wrong=chance.choice(["nothing", "nothing", "death", "death", "error"]),
            moment=chance.choice([BEFORE, DURING, AFTER]),
            operation=chance.randint(1, 60),
            plain=plain and chance.random() < 0.35,
        )


class History:
    """A directory and the process that saves to it."""

    def __init__(self, directory, max_to_keep):
        self.directory = str(directory)
        self.max_to_keep = max_to_keep
        self.allowed = {None}  # which values may be the newest
        self.lines = []
        self._chief = None

    def perform(self, step):
        self.lines.append(str(step))
        if step.plain:
            self._chief = None
            save_plainly(self.directory, step)
            self.allowed = {step.number}
            return
        if self._chief is None or step.new_process:
            storage = FaultyStorage(lab.FastStorage())
            self._chief = lab.Chief(self.directory, storage, max_to_keep=self.max_to_keep)
            storage.on_death = self._chief.die
        chief, self._chief = self._chief, None
        chief.storage.add(self._fault(chief.storage, step))
        try:
            chief.save(step.name, step.number, step.workers)
            self.allowed = {step.number}
        except ProcessDied:
            self.allowed = self.allowed | {step.number}
            return
        except CommitUnknownError:
            self.allowed = self.allowed | {step.number}
        except DistckptError as error:
            self.lines.append(f"  {error!r}")
        chief.storage.forget_faults()  # what did not strike must not strike later
        self._chief = chief

    def _fault(self, storage, step):
        where = Where(writing=storage.writes + step.operation)
        if step.goes_wrong == "death":
            return Fault(dies(), where, step.moment)
        code = (errno.EIO, errno.ENOSPC, errno.EROFS)[step.operation % 3]
        return Fault(fails(code), where, step.moment, times=step.goes_wrong == "error")

    def check(self):
        found = lab.restorable(self.directory)
        newest = found[1] if found else None
        assert newest in self.allowed
        self.allowed = {newest}
        pointer = lab.content(self.directory).get("checkpoint")
        if pointer is not None:
            lab.number_of(self.directory, checkpoint_state.parse(pointer).latest)
        for index in pathlib.Path(self.directory).glob("*.index"):
            lab.number_of(self.directory, index.stem)  # what looks like a checkpoint is whole

    def finish(self):
        """Saves once more; returns (too much, too little) of what is then in the directory."""
        chief = lab.Chief(self.directory, max_to_keep=self.max_to_keep)
        chief.save("ckpt-1", 99)
        assert lab.restorable(self.directory) == ("ckpt-1", 99)
        names = [kept.name for kept in chief.managed.active]
        assert len(names) <= self.max_to_keep
        return lab.leftovers(self.directory, names)


def save_plainly(directory, step):
    """Saves as TensorFlow does: by a manager that keeps two, by one without times, or by none."""
    folder = pathlib.Path(directory)
    known = folder / "checkpoint"
    paths = checkpoint_state.parse(known.read_bytes()).paths if known.exists() else ()
    before = [name for name in paths if name != step.name and (folder / f"{name}.index").exists()]
    lab.plain_save(directory, step.name, step.number, listed=False)
    names = [*before, step.name] if step.operation % 3 else [step.name]
    for name in names[:-2]:
        for path in [*folder.glob(f"{name}.index"), *folder.glob(f"{name}.data-*")]:
            path.unlink()
    if step.operation % 2:
        state = checkpoint_state.CheckpointState(step.name, tuple(names[-2:]))
        known.write_bytes(checkpoint_state.render(state))
    else:
        # A clock may be wrong by hours, and then it is for all that the file lists.
        now = time.time() + 3600.0 * (step.operation % 5 - 2)
        lab.point_to(directory, names[-2:], [now + 1e-6 * n for n in range(len(names[-2:]))])


# The first ones are for every day.
SEEDS = pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.long if n >= 60 else ()) for n in range(150)]
)


def play(seed, folder, *, plain):
    """Plays a history to its end; returns (too much, too little) of what it leaves."""
    chance = random.Random(seed)
    history = History(folder / "run", max_to_keep=chance.choice([1, 2, 3]))
    try:
        for step in steps(chance, plain=plain):
            history.perform(step)
            history.check()
        return history.finish()
    except Exception as error:
        raise AssertionError("\n".join([*history.lines, repr(error)])) from error


@SEEDS
def test_a_history_loses_nothing_and_leaves_nothing(seed, folder):
    assert play(seed, folder, plain=False) == ([], [])


@SEEDS
def test_a_history_with_plain_tensorflow_loses_nothing(seed, folder):
    """What plain TensorFlow forgets, or leaves over, stays: it is nobody's to delete."""
    extra, missing = play(seed, folder, plain=True)
    assert missing == []
    assert [f for f in extra if "pending" in f or ".distckpt" in f or ".tmp" in f] == []
