"""The processes of one peer, as the driver sees them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PEERS = Path(__file__).resolve().parents[1] / "peers"
_CALM = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


class PeerFailedError(RuntimeError):
    """A peer raised, died or did not answer; the text says why."""


class Group:
    """`count` processes of one program, which obey calls, all at once; see peers/serve.py.

    Args:
      library: Whose program.
      python: The interpreter.
      ports: Free ports, one for each process.
      variables: Variables of the environment.

    Attributes:
      folder: Where they save.
    """

    def __init__(
        self, library: str, python: str, ports: list[int], variables: Mapping[str, str]
    ) -> None:
        self.folder = Path()
        self.count = len(ports)
        self._peers = [
            _Peer(library, python, ports, index, variables) for index in range(self.count)
        ]

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the processes."""
        for peer in self._peers:
            peer.close()

    def ask(self, name: str, **arguments: Any) -> None:
        """Has every process do `name`; `answers` collects what they return."""
        for peer in self._peers:
            peer.send({"do": name, **arguments})

    def answers(self, timeout: float = 300.0) -> list[Any]:
        """Returns what the processes answer to `ask`, by index.

        Raises:
          PeerFailedError: One raised, died, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        return [peer.receive(deadline - time.monotonic()) for peer in self._peers]

    def call(self, name: str, **arguments: Any) -> list[Any]:
        """Has every process do `name`, and returns what they answer."""
        self.ask(name, **arguments)
        return self.answers()


class _Peer:
    """One process."""

    def __init__(
        self,
        library: str,
        python: str,
        ports: list[int],
        index: int,
        variables: Mapping[str, str],
    ) -> None:
        self._name = f"{library} {index}"
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        settings = {"index": index, "count": len(ports), "ports": ports}
        program = str(_PEERS / f"{library}_peer.py")
        self._process = subprocess.Popen(
            [python, program, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**_environment(ports, index), **variables},
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerFailedError(f"{self._name} is gone: {self._tell()}") from error

    def receive(self, timeout: float) -> Any:
        try:
            line = self._lines.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise PeerFailedError(f"{self._name} does not answer: {self._tell()}") from None
        if not line:
            raise PeerFailedError(f"{self._name} died: {self._tell()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailedError(f"{self._name}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _tell(self) -> str:
        self._log.seek(0)
        return self._log.read()[-3000:].decode(errors="replace")


def _environment(ports: list[int], index: int) -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"} | _CALM
    if len(ports) > 1:
        workers = [f"localhost:{port}" for port in ports]
        task = {"type": "worker", "index": index}
        found["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    return found
