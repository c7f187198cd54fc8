"""Training programs in which something goes wrong on one worker, for real processes.

The state is several variables that all hold the number of the step, spread over the workers'
shares, so a checkpoint that mixes two moments shows it. A program counts steps, calls ``save()``,
catches errors, and goes on. Pools call `run`; processes without a strategy run this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

import distckpt
from distckpt.policies import Clock, Moment, SavePolicy
from distckpt.storage.local import LocalStorage

PARTS = 6
_SHAPE = (400,)


class Broken(Exception):
    """What a program raises."""


@dataclasses.dataclass(frozen=True)
class Breakable(SavePolicy):
    """Decides as another policy, but raises once when `armed` has something in it."""

    policy: SavePolicy
    armed: list[str] = dataclasses.field(default_factory=list)

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        if self.armed:
            raise Broken(self.armed.pop())
        return self.policy.decide(moment)

    def rest(self, clock: Clock) -> float | None:
        """See the base class."""
        return self.policy.rest(clock)

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return self.policy.needs_clock


class Moody(tf.train.experimental.PythonState):
    """State that cannot be read once it is `armed`."""

    def __init__(self) -> None:
        self.armed: list[str] = []

    def serialize(self) -> str:
        """Returns the state."""
        if self.armed:
            raise Broken(self.armed.pop())
        return "calm"

    def deserialize(self, text: str) -> None:
        """Takes the state."""


def _policy(every: str | None) -> Breakable | None:
    kinds: dict[str, SavePolicy] = {
        "steps": distckpt.policies.EverySteps(1),
        "clock": distckpt.policies.EverySeconds(0.02),
    }
    return Breakable(kinds[every]) if every else None


class Worker:
    """One worker: its variables, its manager, and how its calls have ended.

    Args:
      strategy: The strategy; None for plain variables.
      index: Which worker.
      directory: Where it saves.
      counted: What says at which step the state is: "step_counter", "iterations" (an integer
        variable in the state), or "nothing".
      in_step: Whether each step of training has a collective.
      every: The save policy: "steps", "clock" or None.
      pause: Seconds that a step takes.
      coordinator: Without a strategy.
      options: For `distckpt.ManagerOptions`.
    """

    def __init__(
        self,
        strategy: Any,
        index: int,
        directory: str,
        *,
        counted: str,
        in_step: bool,
        every: str | None = None,
        pause: float = 0.0,
        coordinator: Any = None,
        **options: Any,
    ) -> None:
        self.index, self._pause = index, pause
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            parts = [tf.Variable(tf.zeros(_SHAPE)) for _ in range(PARTS)]
            self._step = tf.Variable(0, dtype=tf.int64)
        self._parts, self._mood, self._policy = parts, Moody(), _policy(every)
        tracked = {"parts": parts, "mood": self._mood}
        if counted != "nothing":
            tracked["iterations"] = self._step
        self.manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(**tracked),
            directory,
            None,
            step_counter=self._step if counted == "step_counter" else None,
            coordinator=coordinator,
            options=distckpt.ManagerOptions(durable=False, save_policy=self._policy, **options),
        )
        self._reduce = _collective(strategy) if in_step else None
        self.heard: list[tuple[int, str, str]] = []  # step, "path" or the error's type, text

    def train(self) -> None:
        """Takes a step."""
        self._step.assign_add(1)
        if self._reduce is not None:
            self._reduce()
        time.sleep(self._pause)
        for part in self._parts:
            part.assign(tf.fill(_SHAPE, float(self._step.numpy())))

    def attempt(self, call: Callable[[], Any]) -> bool:
        """Does `call`, remembers how it ended, and returns whether that was well."""
        try:
            path, kind = call(), "path"
        except Exception as error:
            path, kind = error, type(error).__name__
        self.heard.append((int(self._step.numpy()), kind, str(path)))
        return kind == "path"

    def save(self, fault: str | None) -> bool:
        """Calls ``save()``, in which something goes wrong; returns whether it was well.

        A call that is not due reads no state, so "capture" does not strike there.
        """
        call = self.manager.save
        if fault == "skip":
            return True
        if fault == "metric":
            return self.attempt(lambda: call(metrics={"loss": "n/a"}))
        if fault == "callback":
            options = tf.train.CheckpointOptions(experimental_write_callbacks=[_raise])
            return self.attempt(lambda: call(options=options))
        armed: dict[str | None, Any] = {"capture": self._mood, "policy": self._policy}
        if fault in armed:
            armed[fault].armed.append(fault)
        if fault == "commit":
            _stalls.append(_STALL)
        well = self.attempt(call)
        if fault in armed:
            armed[fault].armed.clear()  # this call may not have been due
        return well

    def run(self, steps: int, faults: list[tuple[int, int, str]], then: str) -> None:
        """Trains, and saves after each step.

        Args:
          steps: How many.
          faults: (step, worker, what goes wrong there).
          then: What it does after ``save()``: "go on"; "sync"; "sync at tens"; or "again":
            ``sync()``, and if either has failed, both once more.
        """
        for step in range(1, steps + 1):
            self.train()
            mine = [fault for at, who, fault in faults if (at, who) == (step, self.index)]
            well = self.save(mine[0] if mine else None)
            if then == "go on" or (then == "sync at tens" and step % 10):
                continue
            well = self.attempt(self.manager.sync) and well
            if then == "again" and not well:
                self.save(None)
                self.attempt(self.manager.sync)
        self.attempt(self.manager.sync)


def _raise(path: str) -> None:
    raise Broken(f"the write callback of {path}")


def _collective(strategy: Any) -> Callable[[], Any]:
    @tf.function
    def reduce() -> Any:
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    return reduce


_STALL = 9.0  # longer than a worker waits for the chief's last word with a deadline of 1.5 s
_stalls: list[float] = []


@contextlib.contextmanager
def _slow_storage() -> Iterator[None]:
    """Lets this process stall where it commits, when it has been told to."""
    rename = LocalStorage.rename

    def slowly(self: LocalStorage, source: str, target: str) -> None:
        if _stalls and target.endswith(".manifest.json"):
            time.sleep(_stalls.pop())
        rename(self, source, target)

    LocalStorage.rename = slowly  # type: ignore[method-assign]
    try:
        yield
    finally:
        LocalStorage.rename = rename  # type: ignore[method-assign]


def run(
    strategy: Any,
    index: int,
    directory: str,
    steps: int,
    faults: list[tuple[int, int, str]],
    then: str = "go on",
    **worker: Any,
) -> dict[str, Any]:
    """Runs one program; see `Worker`."""
    me = Worker(strategy, index, directory, **worker)
    began = time.monotonic()
    with _slow_storage():
        me.run(steps, faults, then)
    return {
        "heard": me.heard,
        "checkpoints": me.manager.checkpoints,
        "skipped": me.manager.skipped_saves,
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    """Runs the programs of a file, one after the other; writes what became of them."""
    config = json.loads(os.environ.pop("TF_CONFIG"))  # only to learn who this is
    index, count = config["task"]["index"], len(config["cluster"]["worker"])
    name = f"{os.environ['DISTCKPT_RUN_ID']}-{os.environ['DISTCKPT_RESTART']}"
    folder = pathlib.Path(os.environ["FOLDER"])
    coordinator = distckpt.SharedDirectory(str(folder / "meeting"), name, index, count)
    found = [
        run(None, index, in_step=False, coordinator=coordinator, **program)
        for program in json.loads((folder / "programs.json").read_bytes())
    ]
    (folder / f"found-{index}.json").write_text(json.dumps(found))
    coordinator.close()


if __name__ == "__main__":
    main()
