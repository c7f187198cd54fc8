"""A worker that says which signal it got, tidies up for a moment, and ends with code 0."""

import os
import pathlib
import signal
import sys
import time


def end(number: int, frame: object) -> None:
    time.sleep(0.2)
    print("got", signal.Signals(number).name)
    sys.exit(0)


for handled in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(handled, end)
print("ready", flush=True)
pathlib.Path(os.environ["PIDS"], f"{os.getpid()}.pid").touch()
time.sleep(600)
