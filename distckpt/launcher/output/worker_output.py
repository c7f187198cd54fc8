"""The output of one worker, kept in a file and in memory."""

from __future__ import annotations

import contextlib
import threading

TAIL = 1024 * 1024


class WorkerOutput:
    """The output of one worker: all of it in the log file, the last `TAIL` bytes in memory.

    Attributes:
      index: Position of the worker in the cluster.
      name: The worker's name.
      log: Path of the log file, or None.
    """

    def __init__(self, index: int, name: str, log: str | None = None) -> None:
        """Opens the log.

        Args:
          index: Position of the worker in the cluster.
          name: The worker's name.
          log: Path of the log file, replaced if it exists; or None.

        Raises:
          OSError: The log file cannot be written.
        """
        self.index = index
        self.name = name
        self.log = log
        self._tail = bytearray()
        self._lock = threading.Lock()
        # Open for as long as the pump runs, and unbuffered, so that it can be followed.
        self._file = None if log is None else open(log, "wb", buffering=0)  # noqa: SIM115

    def record(self, data: bytes) -> str | None:
        """Keeps `data`; returns a message for the user if writing the log has just failed."""
        with self._lock:
            self._tail += data
            if len(self._tail) > 2 * TAIL:  # rarely, because cutting the front moves the rest
                del self._tail[:-TAIL]
        try:
            while self._file is not None and data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self.close()
            return f"the output of {self.name} is no longer kept: {self.log}: {error.strerror}."
        return None

    def text(self) -> str:
        """Returns the last `TAIL` bytes as text; bytes that are not UTF-8 become U+FFFD."""
        with self._lock:
            return bytes(self._tail[-TAIL:]).decode(errors="replace")

    def close(self) -> None:
        """Closes the log file. May be called repeatedly."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
