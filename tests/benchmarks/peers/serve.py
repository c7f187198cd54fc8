"""What every peer program shares: the protocol, the clock, the training loop, the memory.

The driver writes one JSON object a line to standard input: {"do": name, argument: value, …}, and
reads one a line from standard output: {"value": …} or {"error": text}. Whatever a library prints
goes to standard error. The names are the methods of `Program`. No framework is imported here.
"""

from __future__ import annotations

import abc
import json
import math
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPUTE_SECONDS = 0.025
_MOST_STEPS = 2000
_LONGEST_SAVE = 240.0  # seconds


class Library(abc.ABC):
    """One library that saves and restores; one process, one worker.

    Attributes:
      keep: How many checkpoints to keep, None for all; settled before the first save.
      prunes: Whether the library itself deletes those that it need not keep.
    """

    keep: int | None = None
    prunes = True

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Returns the versions of what is measured."""

    @abc.abstractmethod
    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        """Makes the state that `state` describes; returns its bytes.

        With `fresh`, of zeros, as a program does before it restores.
        """

    @abc.abstractmethod
    def compute(self, times: int) -> None:
        """Multiplies two matrices of 512 × 512 so many times, and waits until that is done."""

    @abc.abstractmethod
    def update(self) -> None:
        """Adds to every variable, and waits until that is done."""

    def before_update(self) -> None:
        """Waits until the state may be changed although a save is under way."""
        return

    @abc.abstractmethod
    def save(self, variant: str, number: int) -> None:
        """Saves; returns when the call of the library does."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Waits until the save is complete."""

    @abc.abstractmethod
    def landed(self) -> bool:
        """Returns whether the save is complete, at once."""

    @abc.abstractmethod
    def restore(self, variant: str, number: int) -> None:
        """Restores checkpoint `number` into the state."""

    @abc.abstractmethod
    def first_elements(self) -> list[float]:
        """Returns the first number of every variable."""

    def change(self) -> None:
        """Adds one more object to what is saved."""
        raise NotImplementedError


class Program:
    """The commands of one peer."""

    def __init__(self, library: Library, index: int) -> None:
        self._library = library
        self._index = index
        self._number = 0
        self._matmuls = 1
        self._folder = Path()
        self._nbytes = 0

    def hello(self) -> dict[str, str]:
        """Returns versions; the process is up."""
        return self._library.versions()

    def prepare(self, state: dict[str, Any], folder: str, fresh: bool = False) -> int:
        """Makes the state; returns its bytes."""
        self._folder = Path(folder)
        if self._index == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._nbytes = self._library.build(state, self._folder, fresh)
        return self._nbytes

    def train(self, steps: int) -> list[float]:
        """Trains; returns the seconds of each step. The first call chooses how much to compute."""
        if self._matmuls == 1:
            self._matmuls = matmuls(self._library.compute)
        return [self._step() for _ in range(steps)]

    def save(
        self, variant: str, start_at: float = 0.0, update: bool = True, wait: bool = True
    ) -> dict[str, float]:
        """Saves; returns when it began (of `time.monotonic`), and how long it took.

        "returned" are the seconds until the library's call returned, "stopped" until the state may
        be changed again, "committed" until the checkpoint is complete.
        """
        if update:
            self._library.update()
        self._number += 1
        time.sleep(max(0.0, start_at - time.monotonic()))
        began = time.monotonic()
        self._library.save(variant, self._number)
        returned = time.monotonic()
        self._library.before_update()
        stopped = time.monotonic()
        if wait:
            self._library.wait()
        return {
            "began": began,
            "returned": returned - began,
            "stopped": stopped - began,
            "committed": time.monotonic() - began,
        }

    def train_and_save(self, variant: str, before: int, after: int) -> dict[str, Any]:
        """Trains, saves in the middle, and trains on while the save is under way and afterwards."""
        steps = self.train(before)
        saved = self.save(variant, update=False, wait=False)
        during: list[float] = []
        deadline = time.monotonic() + _LONGEST_SAVE
        while not self._library.landed() and len(during) < _MOST_STEPS:
            during.append(self._step())
            if time.monotonic() > deadline:
                raise TimeoutError("The save does not come to an end.")
        saved["committed"] = time.monotonic() - saved["began"]
        # The first step after a save can be the slow one, even if the save has already ended.
        during.append(self._step())
        self._library.wait()
        return {**saved, "before": steps, "during": during, "after": self.train(after)}

    def memory(self, variant: str, saves: int) -> dict[str, float]:
        """Returns the most memory of training without a save, and then with some, in bytes."""
        self.train(2)
        _forget_high_water()
        self.train(3)
        level = _status("VmHWM")
        _forget_high_water()
        for _ in range(saves):
            self.save(variant, update=False, wait=False)
            self.train(2)
            self._library.wait()
            self.discard()
        return {"level": level, "peak": _status("VmHWM"), "state": self._nbytes}

    def repeat(self, variant: str, times: int) -> list[int]:
        """Saves so many times, training in between; returns the resident bytes after each."""
        found = []
        self._library.keep = 1  # a manager that keeps more has more to remember
        for _ in range(times):
            self.save(variant, update=False, wait=False)
            self._library.before_update()
            self._library.update()
            self._library.wait()
            if not self._library.prunes:
                self.discard()
            found.append(_status("VmRSS"))
        return found

    def restore(self, variant: str, number: int) -> float:
        """Restores; returns the seconds."""
        return _timed(lambda: self._library.restore(variant, number))

    def fingerprint(self) -> float:
        """Returns a number that depends on every variable."""
        return math.fsum((n % 97 + 1) * x for n, x in enumerate(self._library.first_elements()))

    def update(self) -> None:
        """Adds to every variable, as soon as it may."""
        self._library.before_update()
        self._library.update()

    def wait(self) -> None:
        """Waits until the last save is complete."""
        self._library.wait()

    def change(self) -> None:
        """Adds one more object to what is saved."""
        self._library.change()

    def discard(self) -> None:
        """Removes all checkpoints, on worker 0. The libraries' own notes stay."""
        if self._index == 0:
            for path in self._folder.glob("*/*"):
                if re.fullmatch(r"(ckpt-)?\d+\b.*", path.name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _step(self) -> float:
        began = time.perf_counter()
        self._library.compute(self._matmuls)
        self._library.before_update()
        self._library.update()
        return time.perf_counter() - began


def serve(make: Callable[[dict[str, Any]], Library]) -> None:
    """Obeys the driver until it hangs up. `make` is given the settings of the command line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings: dict[str, Any] = json.loads(sys.argv[1])
    program: Program | None = None
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            if program is None:
                program = Program(make(settings), settings["index"])
            answer = {"value": getattr(program, name)(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # the libraries' own ends would wait for other workers


def matmuls(compute: Callable[[int], None]) -> int:
    """Returns how many multiplications a step makes, so that they take `COMPUTE_SECONDS`.

    The fastest of several tries decides: what else the machine does makes the others slower.
    """
    compute(1)
    took = min(_timed(lambda: compute(4)) for _ in range(10)) / 4
    return max(2, round(COMPUTE_SECONDS / took))


def nested(state: dict[str, Any], make: Callable[[int, list[int]], Any]) -> dict[str, Any]:
    """Returns the variables of `state` as a nested dictionary, by the parts of their paths."""
    tree: dict[str, Any] = {}
    for number, (path, shape) in enumerate(state["entries"]):
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = make(number, shape)
    return tree


def leaves(tree: dict[str, Any]) -> list[Any]:
    """Returns the variables of such a dictionary."""
    found = []
    for value in tree.values():
        found += leaves(value) if isinstance(value, dict) else [value]
    return found


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _forget_high_water() -> None:
    """Sets the kernel's high-water mark of resident memory to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    """Returns a field of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None, field
    return 1024 * int(found[1])
