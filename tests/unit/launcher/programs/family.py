"""A worker that is hard to get rid of: it ignores what it can, and so do its descendants.

Forks a child, and a grandchild that goes into a session of its own and loses its parent. Each of
the three leaves a file named after its process id in $PIDS. With an exit code as argument the
worker itself then ends; otherwise all stay.
"""

import os
import pathlib
import signal
import sys
import time


def note() -> None:
    pathlib.Path(os.environ["PIDS"], f"{os.getpid()}.pid").touch()


def stay() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    note()
    time.sleep(600)
    os._exit(0)


if os.fork() == 0:
    stay()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        stay()
    os._exit(0)
if len(sys.argv) > 1:
    # Only when the others are there is there something to leave behind.
    while len(list(pathlib.Path(os.environ["PIDS"]).glob("*.pid"))) < 2:
        time.sleep(0.01)
    note()
    sys.exit(int(sys.argv[1]))
stay()
