"""The process that measures the first update after a hold, in one way; see first_update.py.

    python first_update_program.py '{"megabytes": 256, "saves": 5, …}'

It prints one line of JSON: {"first": SAMPLE, "later": [SAMPLE, …], "held": [[SAMPLE, …], …],
"copies": [SAMPLE, …]}. Each list in "held" begins with nothing held and ends with all.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import disk
import numpy as np
import tensorflow as tf

import distckpt

sys.path.insert(0, str(Path(__file__).resolve().with_name("peers")))

from perf import ways
from serve import matmuls
from tensorflow_state import State

Step = tuple[float, float, int]  # seconds, seconds of the processor, minor page faults


class Program:
    """A training program whose variables are saved, or only held."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self._between: int = settings["between"]
        self._patience: float = settings["patience"]
        self._state = State(ways.big(settings["megabytes"]), 1, False)
        self._times = matmuls(self._state.compute)
        self._kept: list[Any] = []
        self._done = threading.Event()
        self._options = tf.train.CheckpointOptions(
            experimental_write_callbacks=[lambda _: self._done.set()]
        )
        self._manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(**self._state.tracked),
            str(folder),
            1,
            options=distckpt.ManagerOptions(enable_async=True),
        )
        for _ in range(3):
            self.step()

    def step(self) -> Step:
        """Trains one step."""
        wall, cpu, faults = time.perf_counter(), time.process_time(), _faults()
        self._state.compute(self._times)
        self._state.update()
        return time.perf_counter() - wall, time.process_time() - cpu, _faults() - faults

    def prefault(self) -> None:
        """Leaves touched memory for all variables in the allocator's pool."""
        for tensor in [tf.zeros_like(v) for v in self._state.variables]:
            tensor[0, 0].numpy()  # waits until it is there

    def save(self) -> dict[str, Any]:
        """Trains, saves, and trains until the save is complete."""

        def hold() -> Callable[[], object]:
            self._done.clear()
            self._manager.save(options=self._options)
            return lambda: None

        found = self._measure(hold)
        while not self._done.is_set():
            found["slowest"] = max(found["slowest"], self.step()[0])
        self._manager.sync()
        return found

    def hold(self, quarters: int) -> dict[str, Any]:
        """Trains, holds so many quarters of the variables for one step, and writes nothing."""

        def hold() -> Callable[[], object]:
            count = len(self._state.variables) * quarters // 4
            held = [v.value() for v in self._state.variables[:count]]
            return held.clear

        return self._measure(hold)

    def copy(self) -> dict[str, Any]:
        """Trains, copies all variables to memory that is kept for that, and trains."""
        if not self._kept:
            self._kept = [np.array(memoryview(v.value())) for v in self._state.variables]
        usual = [self.step() for _ in range(self._between)]
        cpu = time.process_time()
        for kept, variable in zip(self._kept, self._state.variables, strict=True):
            np.copyto(kept, np.asarray(memoryview(variable.value())))
        cpu = time.process_time() - cpu
        wall, step_cpu, faults = self.step()
        return {"usual": _medians(usual), "step": (wall, cpu + step_cpu, faults)}

    def _measure(self, hold: Callable[[], Callable[[], object]]) -> dict[str, Any]:
        disk.settle(self._patience)
        usual = [self.step() for _ in range(self._between)]
        before = self._addresses()
        release = hold()
        step = self.step()
        release()
        pairs = zip(before, self._addresses(), self._state.variables, strict=True)
        return {
            "usual": _medians(usual),
            "step": step,
            "slowest": step[0],
            "copied": sum(_size(v) for old, new, v in pairs if old != new),
        }

    def _addresses(self) -> list[int]:
        """Returns where the variables' values are: an update in place does not change that."""
        return [
            np.asarray(memoryview(v.value())).__array_interface__["data"][0]
            for v in self._state.variables
        ]


def _medians(steps: list[Step]) -> list[float]:
    return [statistics.median(each) for each in zip(*steps, strict=True)]


def _size(variable: Any) -> int:
    return int(variable.shape.num_elements() * variable.dtype.size)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    """Measures, and prints what was found."""
    settings = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=settings["directory"]) as folder:
        program = Program(settings, Path(folder))
        if settings["prefault"]:
            program.prefault()
        found = {
            "first": program.save(),
            "later": [program.save() for _ in range(settings["saves"])],
            "held": [
                [program.hold(quarters) for quarters in range(5)] for _ in range(settings["saves"])
            ],
            "copies": [program.copy() for _ in range(settings["saves"])],
        }
    print(json.dumps(found), flush=True)
    os._exit(0)  # what TensorFlow's own end would do costs seconds


if __name__ == "__main__":
    main()
