"""The launcher's side of one guard: starts a worker under it and learns how the worker ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_GUARD = str(Path(__file__).with_name("guard.py"))

# Seconds for the remaining descendants of a worker that has ended by itself.
_LINGER = 5.0

# A running guard reads at once; a stopped one (SIGSTOP) must not block the launcher.
_SEND_DEADLINE = 10.0


class GuardedProcess:
    """One worker under its guard; see `distckpt.launcher.guard` for the protocol.

    `multiprocessing.connection.wait` can wait for it. Not thread-safe.

    Attributes:
      pid: Process id of the worker, None until its guard has started it.
      error: Why the worker could not be started, as (text, errno), or None.
      returncode: As `subprocess.Popen.returncode`.
      ended_at: When the worker ended, in seconds of ``time.monotonic``.
      gone: Whether the worker, its descendants and its guard have ended.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int
    ) -> None:
        """Starts the guard, which starts the worker; returns without waiting for either.

        Args:
          command: The program and its arguments.
          env: The worker's whole environment.
          stdout: File descriptor for the worker's standard output.
          stderr: File descriptor for the worker's standard error, and for errors of the guard.

        Raises:
          OSError: The guard could not be started.
        """
        self.pid: int | None = None
        self.error: tuple[str, int] | None = None
        self.returncode: int | None = None
        self.ended_at: float | None = None
        self.gone = False
        self._received = b""
        self._control, theirs = socket.socketpair()
        with theirs:
            try:
                self._guard = _start_guard(theirs.fileno(), stdout, stderr)
            except BaseException:
                self._control.close()
                raise
        self._tell(
            command=[_raw(word) for word in command],
            env={_raw(name): _raw(value) for name, value in env.items()},
        )

    def fileno(self) -> int:
        """Returns a file descriptor that is readable when `receive` has something to read."""
        return self._control.fileno()

    def receive(self) -> None:
        """Reads the guard's messages, without waiting, and updates the attributes."""
        while not self.gone:
            try:
                self._control.settimeout(0)
                data = self._control.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._part()
                return
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                self._note(json.loads(line))

    def signal(self, number: int) -> None:
        """Sends a signal to the worker's process group; nothing happens if the worker has ended."""
        self._tell(signal=number)

    def kill(self) -> None:
        """Sends SIGKILL to the worker and all its descendants."""
        self._tell(kill=True)

    def close(self) -> None:
        """Releases the guard, which kills what is left of the worker. May be called repeatedly."""
        self._control.close()
        self.gone = True

    def _note(self, message: dict[str, Any]) -> None:
        if "pid" in message:
            self.pid = message["pid"]
        elif "error" in message:
            self.error = (message["error"], message["errno"])
        else:
            self.returncode, self.ended_at = message["returncode"], message["at"]

    def _part(self) -> None:
        """Reaps the guard after its end, and cleans up if it was killed."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(_SEND_DEADLINE)
        self.gone = True
        if self.error is not None or self.returncode is not None:
            return
        if self.pid is None:
            self.error = (f"its guard ended with {self._guard.returncode} before starting it", 0)
            return
        # The guard was killed, and the kernel killed the worker with it; this kills its children.
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self.returncode, self.ended_at = -signal.SIGKILL, time.monotonic()

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # the guard is gone: `receive` will notice
            self._control.settimeout(_SEND_DEADLINE)
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _start_guard(control: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", _GUARD, str(control), str(_LINGER)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=[control],
        start_new_session=True,  # away from the terminal, whose Ctrl-C is for the launcher
    )


def _raw(text: str) -> str:
    # The guard may use another file system encoding, so it gets the exact bytes.
    return os.fsencode(text).decode("latin-1")
