"""Runs a program in a process that was forked from one with TensorFlow; see tests/unit/kit/warm.py.

It behaves as if Python had just started with the program.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def run(command, environment, folder, stdout, stderr):
    """Runs a program, and ends the process with its exit code.

    Args:
      command: The path of the program, which is a file, and its arguments.
      environment: All environment variables.
      folder: The working directory.
      stdout: The file to append its standard output to.
      stderr: The same for its standard error.
    """
    os.setsid()
    multiprocessing.current_process().daemon = False  # it may have children, as any program
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # end with the tests
    _redirect(stdout, 1)
    _redirect(stderr, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = list(command)
    sys.path.insert(0, str(Path(command[0]).resolve().parent))
    program = functools.partial(runpy.run_path, command[0], run_name="__main__")
    os._exit(finish(exit_code(program)))


def _redirect(path, number):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, number)
    os.close(file)


def exit_code(program):
    """Calls a program; returns what it exits with, as Python would."""
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def finish(code):
    """Does what Python does at the end, and returns the exit code."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code & 0xFF
