"""Commands of `distckpt`, forked from a process that has imported what they need.

To start Python and to import distckpt costs five times as much as what a command does. A test of
the console script itself, of its imports, of a terminal or of signals starts the script instead.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_PROGRAM = Path(__file__).with_name("startup") / "command_server.py"
SCRIPT = os.path.join(os.path.dirname(sys.executable), "distckpt")
_START_SECONDS = 300.0


class _Server:
    """The process that is forked; it ends with this one."""

    def __init__(self):
        self._link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, str(_PROGRAM), str(other.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL
            )

    def run(self, request, files, timeout):
        """Runs a command; returns its exit code.

        Raises:
          subprocess.TimeoutExpired: It has been killed.
        """
        socket.send_fds(self._link, [json.dumps(request).encode()], files)
        self._link.settimeout(_START_SECONDS)
        pid = int(self._link.recv(100))
        self._link.settimeout(timeout)
        try:
            return int(self._link.recv(100))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._link.settimeout(_START_SECONDS)
            self._link.recv(100)
            raise subprocess.TimeoutExpired(request["command"], timeout) from None


@functools.cache
def _server(environment):
    """Returns the server for a process, and for variables that Python reads when it starts."""
    return _Server()


def _read_at_start():
    """What a new Python would make otherwise."""
    names = ("PYTHON", "LANG", "LC_", "COVERAGE")
    return (os.getpid(), *sorted(item for item in os.environ.items() if item[0].startswith(names)))


def run(*arguments, cwd=None, timeout=300):
    """Does what `subprocess.run` does with `distckpt`, when it captures the output as text."""
    request = {
        "command": [SCRIPT, *map(str, arguments)],
        "environment": dict(os.environ),
        "folder": str(cwd or os.getcwd()),
    }
    temporary = functools.partial(tempfile.TemporaryFile, "w+")
    with open(os.devnull) as nothing, temporary() as out, temporary() as err:
        files = [nothing.fileno(), out.fileno(), err.fileno()]
        code = _server(_read_at_start()).run(request, files, timeout)
        for file in (out, err):
            file.seek(0)
        texts = out.read(), err.read()
    return subprocess.CompletedProcess(request["command"], code, *texts)
