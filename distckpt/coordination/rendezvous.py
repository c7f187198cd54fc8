"""Makes sure that all workers of a job have started, before TensorFlow waits for them.

`tf.distribute.MultiWorkerMirroredStrategy` waits for all workers when it is made, for ten minutes
or more, and holds the interpreter's lock meanwhile, so no thread, signal handler or deadline of
ours can interrupt it. So the workers meet before that, with a deadline; an error names missing
workers. They meet at the chief's address in ``TF_CONFIG``, where TensorFlow's own server listens
later:

    worker → chief   {"worker": 1, "job": "<hash of the cluster>", "host": …, "pid": …}
    chief → worker   {}                              all have come
                     {"error": …, "text": …}         why not: the deadline, two of one index, …

Each message is one line. A worker that cannot reach the chief tries again until the deadline.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distckpt.arguments import is_integer, is_number
from distckpt.coordination.first_messages import LONGEST, FirstMessages, parse
from distckpt.core import tf_config
from distckpt.core.tf_config import Task, TFConfig
from distckpt.errors import ConfigurationError, DeadlineExceededError, DistckptError, reason
from distckpt.runtime import portable

_NAMED = 12  # missing workers that are named; a message has a limit, and a reader, too
_SAY_EVERY = 10.0  # seconds
_BACKLOG = 4096  # connections that wait to be accepted; the system may allow fewer
_PAUSE = 0.2  # seconds between two attempts to reach the chief
_FAREWELL = 2.0  # seconds that all workers together have to close their connections
_GRACE = 5.0  # seconds beyond the deadline that a worker waits for the chief's answer
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
_KINDS: dict[str, type[DistckptError]] = {
    kind.__name__: kind for kind in (ConfigurationError, DeadlineExceededError)
}


def wait_for_workers(deadline: float = 300.0) -> None:
    """Waits until all workers in ``TF_CONFIG`` have made this call. Every worker, before all else.

    Call it right before the strategy is made:

      ```python
      distckpt.wait_for_workers(deadline=300.0)
      strategy = tf.distribute.MultiWorkerMirroredStrategy()
      ```

    Without this call, a worker that never starts makes all others wait silently in TensorFlow. The
    call returns at once if there is no worker to wait for: without ``TF_CONFIG``, in a job of one
    worker, in an evaluator, in a job with parameter servers. It does not need TensorFlow.

    Args:
      deadline: Seconds to wait.

    Raises:
      DeadlineExceededError: A worker has not come; the text names it, with its address. All other
        workers raise the same error.
      ConfigurationError: ``TF_CONFIG`` is invalid, or differs between the workers, two processes
        have the same index, or the chief's port is taken.
    """
    if not is_number(deadline) or not 0 < deadline < float("inf"):
        raise ConfigurationError(
            f"deadline must be a positive number of seconds, got {deadline!r}."
        )
    place = Place.of_this_process()
    if place is None:
        return
    meet(place, deadline)


def meet(place: Place, deadline: float, say: Callable[[str], None] = lambda text: None) -> None:
    """Does what `wait_for_workers` promises, for the process at `place`.

    Args:
      place: This process's place.
      deadline: Seconds to wait.
      say: Called every ten seconds with the missing workers.
    """
    (_Chief if place.index == 0 else _Worker)(place, deadline, say).wait()


class Place:
    """A process's place in its job.

    Args:
      tasks: All workers.
      index: The process's index among them.

    Attributes:
      names: The names of the workers: "worker 1".
      addresses: Their addresses, "host:port".
      index: The process's index.
      job: The identity of the job: a hash of the cluster.
    """

    def __init__(self, tasks: Sequence[Task], index: int) -> None:
        self.names = [task.name for task in tasks]
        self.addresses = [task.address for task in tasks]
        self.index = index
        text = json.dumps(tasks)
        self.job = hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def of_this_process(cls) -> Place | None:
        """Returns the place of this process; None if it has no other workers to meet."""
        return cls.of(tf_config.of(os.environ))

    @classmethod
    def of(cls, config: TFConfig) -> Place | None:
        """Returns the place of a process with this ``TF_CONFIG``; None if it is alone."""
        if not config.workers or config.own_task not in config.workers:
            return None
        for task in config.workers:
            split(task.address, task.name)
        index = config.workers.index(config.own_task)
        return cls(config.workers, index) if len(config.workers) > 1 else None

    def who(self, index: int) -> str:
        """Returns "worker 1 (10.0.0.7:2222)"."""
        return f"{self.names[index]} ({self.addresses[index]})"

    def chiefs(self) -> tuple[str, int]:
        """Returns the chief's host and port."""
        return split(self.addresses[0], self.names[0])


class _Chief:
    """Waits for the other workers at its own address."""

    def __init__(self, place: Place, deadline: float, say: Callable[[str], None]) -> None:
        self._place = place
        self._seconds = deadline
        self._news = _News(say)
        self._end = time.monotonic() + deadline
        self._here: dict[int, socket.socket] = {}  # by worker

    def wait(self) -> None:
        portable.allow_files(len(self._place.names))
        with _listening(self._place) as listener:
            messages = FirstMessages(listener)
            try:
                self._receive_all(messages)
            except DistckptError as error:
                self._answer({"error": type(error).__name__, "text": str(error)})
                raise
            finally:
                messages.end()
            self._answer({})

    def _receive_all(self, messages: FirstMessages) -> None:
        """Waits until all workers are here."""
        while len(self._here) < len(self._place.names) - 1:
            if time.monotonic() >= self._end:
                raise self._too_late()
            self._news.say(lambda: f"waiting for {self._absent()}")
            try:
                for link, hello in messages.wait(min(1.0, self._end - time.monotonic())):
                    self._look(link, hello, messages)
            except OSError as error:
                raise ConfigurationError(
                    f"{self._place.who(0)} cannot accept another worker: {reason(error)}. "
                    f"{len(self._here)} of {len(self._place.names) - 1} are connected. Raise the "
                    "limit of open files of the chief's process (`ulimit -n`)."
                ) from error

    def _look(
        self, link: socket.socket, hello: dict[str, Any] | None, messages: FirstMessages
    ) -> None:
        """Greets a new worker, or forgets one that has disconnected."""
        worker = self._greet(link, hello) if hello is not None else None
        if worker is None:
            messages.close(link)
            self._here = {w: there for w, there in self._here.items() if there is not link}
        else:
            self._here[worker] = link

    def _greet(self, link: socket.socket, hello: dict[str, Any]) -> int | None:
        """Returns the index of a new worker; None for a stranger or a refused worker."""
        worker = hello.get("worker")
        if not is_integer(worker):
            return None  # a port scanner, or a worker that is already making its strategy
        name = f"{hello.get('host')} (pid {hello.get('pid')})"
        if hello.get("job") != self._place.job or not 0 < worker < len(self._place.names):
            text = f"{name} came to {self._place.who(0)} with another cluster in its TF_CONFIG."
        elif worker in self._here and _is_open(self._here[worker]):
            text = (
                f"{name} says that it is {self._place.who(worker)}, and so does another process. "
                "Give each its own index in TF_CONFIG; or end a process left from an earlier start."
            )
        else:
            return worker
        with contextlib.suppress(OSError):
            _send(link, {"error": "ConfigurationError", "text": text})
        return None

    def _answer(self, message: dict[str, str]) -> None:
        for link in self._here.values():
            with contextlib.suppress(OSError):
                _send(link, message)
        # The side that closes first keeps the port busy, so wait for the other sides.
        end = time.monotonic() + _FAREWELL
        for link in self._here.values():
            left = end - time.monotonic()
            with contextlib.suppress(OSError), link:
                if left > 0:
                    link.settimeout(left)
                link.recv(1)

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"Of {len(self._place.names)} workers in TF_CONFIG, these have not started within "
            f"{self._seconds:g} s: {self._absent()}. Look at their logs; or correct TF_CONFIG."
        )

    def _absent(self) -> str:
        absent = [i for i in range(1, len(self._place.names)) if i not in self._here]
        shown = ", ".join(map(self._place.who, absent[:_NAMED]))
        more = len(absent) - _NAMED
        return f"{shown} and {more:,} more" if more > 0 else shown


class _Worker:
    """Connects to the chief, again and again, and waits for its answer."""

    def __init__(self, place: Place, deadline: float, say: Callable[[str], None]) -> None:
        self._place = place
        self._seconds = deadline
        self._news = _News(say)
        self._end = time.monotonic() + deadline
        self._reason = "no answer"

    def wait(self) -> None:
        while time.monotonic() < self._end:
            answer = self._ask()
            if answer is not None:
                if "error" in answer:
                    raise _KINDS.get(str(answer["error"]), ConfigurationError)(answer.get("text"))
                return
            self._news.say(lambda: f"waiting for {self._place.who(0)}: {self._reason}")
            time.sleep(_PAUSE)
        raise DeadlineExceededError(
            f"{self._place.who(0)} has not started within {self._seconds:g} s: {self._reason}. "
            f"This is {self._place.who(self._place.index)}. Look at the chief's log; or correct "
            "TF_CONFIG."
        )

    def _ask(self) -> dict[str, Any] | None:
        """Returns the chief's answer; None if the chief cannot be reached now."""
        hello = {"worker": self._place.index, "job": self._place.job}
        hello |= {"host": socket.gethostname(), "pid": os.getpid()}
        try:
            left = max(0.1, self._end - time.monotonic())
            with socket.create_connection(self._place.chiefs(), min(5.0, left)) as link:
                _send(link, hello)
                answer = _receive(link, left + _GRACE)
        except OSError as error:
            self._reason = str(error)
            return None
        if answer is None:
            self._reason = "it has ended, or is another program"
        return answer


class _News:
    """Reports at intervals what is waited for.

    Args:
      say: Called with the report.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next = time.monotonic() + _SAY_EVERY

    def say(self, text: Callable[[], str]) -> None:
        """Reports `text()`, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_EVERY
            self._say(text())


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """Listens at the chief's address.

    In a job of one machine that is the exact address. Elsewhere it is all interfaces, as for
    TensorFlow's server: a machine's own name may resolve to a loopback address, which other
    machines cannot reach.
    """
    host, port = place.chiefs()
    name = host if _LOOPBACK.fullmatch(host) else ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((name, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"{place.who(0)} cannot listen at its own address: {reason(error)}. Is the port taken "
            "by a process left from an earlier start?"
        ) from error
    with listener:
        yield listener


def split(address: str, who: str) -> tuple[str, int]:
    """Returns host and port of an address in ``TF_CONFIG``.

    Raises:
      ConfigurationError: It is invalid; the text names `who`.
    """
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536
    if not host or not is_port or not _can_be_looked_up(host):
        raise ConfigurationError(
            f'TF_CONFIG: the address of {who} must be like "host:2222", got {address!r}.'
        )
    return host.strip("[]"), int(port)


def _can_be_looked_up(host: str) -> bool:
    """Returns whether sockets accept `host`; for some names they raise only UnicodeError."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Returns the next message; None if it is malformed.

    Raises:
      OSError: No complete message has come within `seconds`.
    """
    data, end = b"", time.monotonic() + seconds
    while not data.endswith(b"\n"):
        link.settimeout(max(0.01, end - time.monotonic()))
        more = link.recv(LONGEST)
        data += more
        if not more or len(data) > LONGEST:
            return None
    return parse(data)


def _is_open(link: socket.socket) -> bool:
    """Returns whether the other side still waits for our answer."""
    try:
        link.setblocking(False)
        return bool(link.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
