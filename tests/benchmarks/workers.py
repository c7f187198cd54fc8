"""The worker processes of one measurement, as the benchmark's main program sees them."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from distckpt.launcher import LocalCluster

_PROGRAM = Path(__file__).resolve().with_name("worker_program.py")
_START_SECONDS = 180.0


class WorkerFailedError(RuntimeError):
    """A worker raised, died or did not answer; the text says which and why."""


class Workers:
    """`count` processes of one MultiWorkerMirroredStrategy, which obey calls, all at once.

    Leaving the ``with`` block ends them, whatever they are doing.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._folder = tempfile.TemporaryDirectory(prefix="save-speed-")
        self._address = str(Path(self._folder.name, "socket"))
        self._links: dict[int, Connection] = {}
        self._cluster = LocalCluster(
            [sys.executable, str(_PROGRAM), self._address],
            workers=count,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )

    def __enter__(self) -> Workers:
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(self._address)
                listener.listen(self.count)
                listener.settimeout(1.0)
                self._cluster.start()
                self._accept(listener)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers."""
        for link in self._links.values():
            link.close()
        self._cluster.close()
        self._folder.cleanup()

    def call(self, name: str, timeout: float = 300.0, **arguments: Any) -> list[Any]:
        """Has every worker do `name`, and returns the answers, by index.

        A call begins only when the one before it has ended everywhere: that is the barrier.

        Args:
          name: A method of `saves.Saves`.
          timeout: Seconds.
          **arguments: Its arguments.

        Raises:
          WorkerFailedError: Some worker raised, died, or did not answer in time.
        """
        for link in self._links.values():
            link.send((name, arguments))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        while len(answers) < self.count:
            missing = {link: i for i, link in self._links.items() if i not in answers}
            ready = wait(list(missing), max(0.0, deadline - time.monotonic()))
            if not ready:
                who = sorted(missing.values())
                raise WorkerFailedError(f"{name} took over {timeout:g} s on {self._tell(who)}")
            for index in [i for link, i in missing.items() if link in ready]:
                answers[index] = self._receive(index)
        return [answers[index] for index in range(self.count)]

    def _receive(self, index: int) -> Any:
        try:
            good, value = self._links[index].recv()
        except (EOFError, ConnectionError) as error:
            raise WorkerFailedError(f"died: {self._tell([index])}") from error
        if not good:
            raise WorkerFailedError(f"worker {index}:\n{value}")
        return value

    def _accept(self, listener: socket.socket) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while len(self._links) < self.count:
            try:
                link = Connection(listener.accept()[0].detach())
            except TimeoutError:
                dead = [w.index for w in self._cluster.processes if w.gone]
                if dead or time.monotonic() > deadline:
                    who = dead or [i for i in range(self.count) if i not in self._links]
                    raise WorkerFailedError(f"did not start: {self._tell(who)}") from None
                continue
            self._links[link.recv()] = link

    def _tell(self, indexes: Sequence[int]) -> str:
        return "\n".join(f"worker {i}\n{self._cluster.output(i)[-3000:]}" for i in indexes)
