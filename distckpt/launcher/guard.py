"""The guard: a small process that owns one worker and kills it when the launcher dies.

`distckpt.launcher.guarded` runs it as a script, one guard for each worker, between the launcher and
the worker. It uses only the standard library, so that ``python -I -S guard.py`` starts in a few
hundredths of a second whatever the worker's environment is.

Why an extra process? The obvious ways fail when the launcher is killed with SIGKILL and cannot
clean up:

- ``PR_SET_PDEATHSIG`` on the worker is tied to the *thread* that forked it, must be set in a
  ``preexec_fn`` (unsafe in a launcher with threads), and is not inherited: the worker's own
  children would survive.
- Only a living process can kill a process group.

The guard is that process. It holds one end of a socket; only the launcher has the other. When the
launcher dies, for whatever reason, the kernel closes its end; the guard reads end-of-file and kills
the worker and all its descendants. The guard has one thread, so ``preexec_fn`` and
``PR_SET_PDEATHSIG`` are safe for its own child; they cover the death of the guard itself. The guard
is also a *child subreaper* (Linux): it adopts descendants that lost their parent, even those in
their own session, so it can find them all.

On systems without ``prctl`` and ``/proc``, only the worker's process group can be killed; a
descendant that left the group survives.

The protocol, one JSON object a line:

    launcher → guard   {"command": [...], "env": {...}}    once, first: start the worker; the bytes
                                                           of each string as Latin-1
                       {"signal": n}                       send n to the worker's process group
                       {"kill": true}                      SIGKILL for worker and all descendants
                       end-of-file                         the launcher is dead or done: like "kill"
    guard → launcher   {"pid": n}                          started
                       {"error": text, "errno": n}         not started
                       {"returncode": n, "at": seconds}    the worker has ended (time.monotonic)
                       end-of-file                         the worker and its descendants have ended

When a worker ends, its remaining descendants get SIGTERM, and SIGKILL a little later. But while the
launcher is stopping the worker, they have as long as the launcher allows: the process that is
finishing a checkpoint may be the child of a shell that has already ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

# Signals that ask a worker to end, within the time that the launcher allows.
_STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")


class Guard:
    """Owns one worker. Single-threaded by design: see the module's docstring."""

    def __init__(self, control: socket.socket, linger: float) -> None:
        """Prepares this process.

        Args:
          control: The guard's end of the socket to the launcher.
          linger: Seconds between SIGTERM and SIGKILL for the descendants of an ended worker.
        """
        self._control = control
        self._linger = linger
        self._received = b""
        self._launcher = os.getppid()
        self._worker: int | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._stopping = False
        self._killing = False
        self._linger_until: float | None = None
        self._libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._signals = _signal_pipe()

    def run(self) -> None:
        """Serves until the worker and all its descendants have ended."""
        while True:
            self._reap()
            if self._ended and not self._alive():
                return
            self._enforce()
            # Only deaths of direct children wake this loop, hence the short pauses.
            pause = 0.02 if self._ended or self._killing else 1.0
            ready, _, _ = select.select(self._inputs(), [], [], pause)
            if self._signals in ready:
                os.read(self._signals, 4096)
            if self._control.fileno() in ready:
                self._obey()

    def _inputs(self) -> list[int]:
        # After end-of-file the socket would be readable forever.
        return [self._signals] if self._killing else [self._signals, self._control.fileno()]

    def _obey(self) -> None:
        try:
            data = self._control.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._killing = True
            self._ended = self._ended or self._worker is None
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "command" in message:
                self._start(message["command"], message["env"])
            elif "signal" in message:
                self._stopping |= message["signal"] in _STOPPING
                self._send_group(message["signal"])
            else:
                self._killing = True

    def _start(self, command: list[str], env: dict[str, str]) -> None:
        guard = os.getpid()

        def die_with_guard() -> None:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # the guard died before the line above took effect
                os._exit(1)

        try:
            # Kept, but never polled: a Popen that is polled or garbage-collected would take the
            # exit status away from `_reap`.
            self._popen = subprocess.Popen(
                [word.encode("latin-1") for word in command],
                env={k.encode("latin-1"): v.encode("latin-1") for k, v in env.items()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_guard,
            )
        except OSError as error:
            self._ended = True
            self._tell(error=error.strerror or str(error), errno=error.errno)
            return
        self._worker = self._popen.pid
        self._tell(pid=self._worker)

    def _reap(self) -> None:
        """Collects dead children, adopted ones too, and reports the worker's end."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._worker:
                self._ended = True
                code = os.waitstatus_to_exitcode(status)
                self._tell(returncode=code, at=time.monotonic())
                self._send_all(signal.SIGTERM)
                if not self._stopping:
                    self._linger_until = time.monotonic() + self._linger

    def _enforce(self) -> None:
        """Kills processes whose time is up."""
        if os.getppid() != self._launcher:
            # A child of the dead launcher can still hold the launcher's end of the socket open.
            self._killing = True
        if self._linger_until is not None and time.monotonic() >= self._linger_until:
            self._killing = True
        if self._killing:
            self._send_all(signal.SIGKILL)

    def _alive(self) -> bool:
        if _has_proc():
            return bool(_descendants())
        return self._worker is not None and _send(os.killpg, self._worker, 0)

    def _send_group(self, number: int) -> None:
        if self._worker is None:
            return
        if not self._ended:
            _send(os.killpg, self._worker, number)
            return
        # The worker has been reaped: its pid may belong to another process by now.
        for pid, group in _descendants().items():
            if group == self._worker:
                _send(os.kill, pid, number)

    def _send_all(self, number: int) -> None:
        if self._worker is not None and (not self._ended or not _has_proc()):
            _send(os.killpg, self._worker, number)
        for pid in _descendants():
            _send(os.kill, pid, number)

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # the launcher is dead: noticed in `_obey`
            self._control.sendall(json.dumps(message).encode() + b"\n")

    def _prctl(self, option: int, value: int) -> None:
        if self._libc is not None:
            self._libc.prctl(option, value, 0, 0, 0)


def _signal_pipe() -> int:
    """Returns a file descriptor that becomes readable when a child ends.

    Signals that would end the guard are dropped: at the shutdown of a machine every process gets
    SIGTERM, but the launcher decides. Handlers do this instead of SIG_IGN, because the worker does
    not inherit handlers: it starts with the default actions, even if the launcher was started by
    nohup, or in the background of a script, with signals ignored. The launcher alone decides when
    the worker ends.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in _STOPPING:
        signal.signal(number, lambda *_: None)
    return reader


def _has_proc() -> bool:
    return _LINUX and os.path.exists("/proc/self/stat")


def _descendants() -> dict[int, int]:
    """Returns the process group of each descendant of this process; {} without ``/proc``."""
    if not _has_proc():
        return {}
    parents, groups = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # proc(5): pid (name) state ppid pgrp …; the name may hold spaces and brackets.
                _, parent, group = file.read().rpartition(b")")[2].split()[:3]
                parents[int(name)], groups[int(name)] = int(parent), int(group)
    found: set[int] = set()
    newest = {os.getpid()}
    while newest:
        newest = {pid for pid, parent in parents.items() if parent in newest}
        found |= newest
    return {pid: groups[pid] for pid in found}


def _send(send: Any, target: int, number: int) -> bool:
    try:
        send(target, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, but runs as another user
        return True
    return True


def main() -> None:
    """Runs the guard: ``guard.py <file descriptor of the socket> <linger, in seconds>``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    Guard(control, linger=float(sys.argv[2])).run()
    os._exit(0)  # nothing to flush, and nothing may delay the end


if __name__ == "__main__":
    main()
