"""Starts the process that measures one commit, and sends it requests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

_BENCHMARKS = Path(__file__).resolve().parents[1]
_PATIENCE = 300.0  # seconds for one answer
_LAST_LINES = 15


class ChildFailedError(Exception):
    """The process has ended, or takes too long."""


class Child:
    """A process that runs `regression.program`. Use it as a context manager.

    Args:
      tree: The folder with the package `distckpt`.
      scratch: A folder for its files; made here.
    """

    def __init__(self, tree: Path, scratch: Path) -> None:
        work = scratch / "work"
        work.mkdir(parents=True)
        self._tree = tree
        self._log = scratch / "stderr.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "regression.program", str(work)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(tree),
                cwd=work,
                text=True,
                start_new_session=True,  # Ctrl-C is for the main program alone
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def names(self, side: str) -> list[str]:
        """Waits until the process has started; returns the names of the measurements.

        Args:
          side: How errors name the process.
        """
        hello = self.answer(side)
        if not Path(hello["package"]).is_relative_to(self._tree):
            raise ChildFailedError(f"{side} has imported {hello['package']}, not its own commit")
        names: list[str] = hello["names"]
        return names

    def measure(self, name: str) -> dict[str, Any]:
        """Returns the processor time and the counts of a measurement, or an error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, either
            print(json.dumps({"measure": name}), file=self._process.stdin, flush=True)
        return self.answer(name)

    def answer(self, what: str) -> dict[str, Any]:
        """Waits for the next answer. Raises ChildFailedError."""
        assert self._process.stdout is not None
        timer = threading.Timer(_PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            self._process.kill()
            last = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise ChildFailedError("\n".join([f"{what}: no answer; the last lines were:", *last]))
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()  # it has nothing to finish
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _environment(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(tree), str(_BENCHMARKS)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # `trees` has compiled both
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
