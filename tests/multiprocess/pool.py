"""Warm clusters for tests: starting one costs seconds, so tests that need no fresh one share it.

A pool is a `WarmCluster` of N processes that each run this file. It creates a
MultiWorkerMirroredStrategy, connects to the tests, and runs the programs that they name, on all
workers at once. A program is a function of a module next to this file: "saving.save".
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

START_SECONDS = 300.0


class RemoteError(AssertionError):
    """A program raised on some worker; the text has the traceback of every such worker."""


class Pool:
    """`count` warm workers."""

    def __init__(self, count: int, *, chief: bool = False, env: dict[str, str] | None = None):
        from ..unit.kit.warm import WarmCluster  # workers run this file outside a package

        self.count = count
        self._folder = tempfile.TemporaryDirectory()
        address = str(Path(self._folder.name, "socket"))
        self._listener = Listener(address, "AF_UNIX", backlog=count)
        self.cluster = WarmCluster(
            [Path(__file__).resolve(), address],
            workers=count,
            chief=chief,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **(env or {})},
        )
        self.cluster.start()
        self._links: dict[int, Connection] = {}
        self._accept()
        self.broken = False

    def _accept(self) -> None:
        self._listener._listener._socket.settimeout(START_SECONDS)  # type: ignore[attr-defined]
        deadline = time.monotonic() + START_SECONDS
        while len(self._links) < self.count:
            if time.monotonic() > deadline:
                raise TimeoutError(self._logs())
            try:
                link = self._listener.accept()
            except OSError as error:
                raise TimeoutError(self._logs()) from error
            self._links[link.recv()] = link

    def run(
        self,
        program: str,
        timeout: float = 300.0,
        per_worker: list[dict] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Runs `program` on all workers; returns what each returned, by index.

        Args:
          program: The names of its module and function, as in "saving.save".
          timeout: Seconds.
          per_worker: More arguments, for each worker.
          kwargs: Arguments for all workers.

        Raises:
          RemoteError: It raised on some worker.
        """
        for index, link in self._links.items():
            extra = per_worker[index] if per_worker else {}
            link.send((program, {**kwargs, **extra}))
        deadline = time.monotonic() + timeout
        results: dict[int, Any] = {}
        errors = []
        for index in range(self.count):
            link = self._links[index]
            try:
                if not link.poll(max(0.0, deadline - time.monotonic())):
                    self.broken = True
                    raise TimeoutError(
                        f"worker {index} did not finish {program} in {timeout} s\n" + self._stacks()
                    )
                good, value = link.recv()
            except (EOFError, ConnectionError):
                self.broken = True
                errors.append(f"--- worker {index} died\n{self.cluster.output(index)[-3000:]}")
                continue
            if good:
                results[index] = value
            else:
                errors.append(f"--- worker {index}\n{value}")
        if errors:
            self.broken = True  # its workers may be out of step now
            raise RemoteError("\n".join(errors))
        return [results[index] for index in range(self.count)]

    def _stacks(self) -> str:
        """Lets every worker dump its stacks (faulthandler, SIGUSR1) and returns the output."""
        import signal

        self.cluster.signal_all(signal.SIGUSR1)
        time.sleep(1.0)
        return self._logs()

    def _logs(self) -> str:
        return "\n".join(
            f"--- worker {i}\n{self.cluster.output(i)[-5000:]}" for i in range(self.count)
        )

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._listener.close()
        self.cluster.close()
        self._folder.cleanup()


def serve(address: str) -> None:
    """Runs programs until the tests close the connection."""
    import faulthandler
    import json
    import signal

    faulthandler.register(signal.SIGUSR1, all_threads=True)
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    workers_before = 1 if "chief" in json.loads(os.environ["TF_CONFIG"])["cluster"] else 0
    index = 0 if task["type"] == "chief" else task["index"] + workers_before
    link = Client(address)
    link.send(index)
    while True:
        try:
            name, kwargs = link.recv()
        except EOFError:
            os._exit(0)  # the strategy's own shutdown would wait for the other workers
        try:
            module, function = name.split(".")
            program = getattr(importlib.import_module(module), function)
            answer = (True, program(strategy, index, **kwargs))
        except BaseException:
            answer = (False, traceback.format_exc())
        link.send(answer)


if __name__ == "__main__":
    serve(sys.argv[1])
