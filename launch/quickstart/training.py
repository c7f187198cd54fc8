"""``distckpt launch`` as a child process."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

# All in seconds. A start takes 6 to 8, on a busy machine more; after SILENCE something hangs.
SILENCE = 120.0
END = 30.0
GRACE = 2.0

DEFAULTS = {
    # Of what TensorFlow's C++ part logs, only what ends the process; what matters otherwise arrives
    # as a Python exception. TF_CPP_MIN_LOG_LEVEL=0 shows everything.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # or it warns that it is on
}
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",  # several workers cannot share one GPU
    "KERAS_BACKEND": "tensorflow",
}


class Training:
    """The running launcher. Leaving the ``with`` block ends it and its workers."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            env={**DEFAULTS, **os.environ, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def lines(self) -> Iterator[str]:
        """Yields the output, line by line, until it ends.

        Raises:
          TimeoutError: Nothing came for `SILENCE` seconds.
        """
        while True:
            try:
                line = self._lines.get(timeout=SILENCE)
            except queue.Empty:
                raise TimeoutError(f"nothing was heard of the training for {SILENCE:g} s") from None
            if line is None:
                return
            yield line.rstrip("\n")

    def wait(self) -> int:
        """Returns the exit code, after the output has ended.

        Raises:
          TimeoutError: It does not end.
        """
        try:
            return self._process.wait(END)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the launcher has not ended after {END:g} s") from None

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        # The launcher passes the first SIGINT on; at the second it kills the workers.
        for patience in (GRACE, END):
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
        if self._process.poll() is None:
            self._process.kill()  # its workers die with it

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)
