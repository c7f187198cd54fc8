"""Runs commands of `distckpt` in forks of a process that has imported what they need.

See tests/unit/kit/command.py. Each message on the socket, whose file descriptor is the argument, is
a command with its three standard files. The answers are the process id of the command and, when it
has ended, its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys

import warm_program

# What most commands import when they run. None needs NumPy, whose threads no fork should inherit.
_MODULES = (
    "distckpt.cli.completion",
    "distckpt.cli.prune_plan",
    "distckpt.cli.table",
    "distckpt.doctor.single_process_check",
    "distckpt.inspection.damage",
    "distckpt.inspection.keep_reasons",
    "distckpt.inspection.timeline",
    "distckpt.maintenance.import_checkpoint",
    "distckpt.maintenance.leftovers",
    "distckpt.maintenance.rollback",
)


def serve(link):
    """Runs one command after the other, until nobody is there any more."""
    while True:
        message, files, _, _ = socket.recv_fds(link, 1 << 20, 3)
        if not message:
            return
        child = os.fork()
        if child == 0:
            link.close()
            _become(json.loads(message), files)
        for file in files:
            os.close(file)
        link.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        link.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(request, files):
    """Behaves as if Python had just started with the console script."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["command"]
    os._exit(warm_program.finish(warm_program.exit_code(_command)))


def _command():
    from distckpt.cli import main

    sys.exit(main())


if __name__ == "__main__":
    for name in _MODULES:
        importlib.import_module(name)
    assert not {"numpy", "tensorflow"} & sys.modules.keys()
    serve(socket.socket(fileno=int(sys.argv[1])))
