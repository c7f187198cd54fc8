"""Makes sure that all workers of a job have started, before TensorFlow waits for them.

`tf.distribute.MultiWorkerMirroredStrategy` waits for all workers when it is made, for ten minutes
and more, with the interpreter's lock held: no thread, no signal handler and no deadline of ours can
do anything about it. So the workers meet before that, with a deadline; who never comes is named.

They meet at the address that ``TF_CONFIG`` gives the chief, where TensorFlow's own server is to
listen a moment later:

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
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from distckpt.coordination import tf_config
from distckpt.errors import ConfigurationError, DeadlineExceededError, DistckptError

_JOBS = ("chief", "worker")  # in the order in which workers are numbered
_LONGEST = 4096  # bytes of a message
_SAY_EVERY = 10.0  # seconds
_PAUSE = 0.2  # seconds between two attempts to reach the chief
_GRACE = 5.0  # seconds that a worker allows the chief to say its last word
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
_KINDS: dict[str, type[DistckptError]] = {
    kind.__name__: kind for kind in (ConfigurationError, DeadlineExceededError)
}


def wait_for_workers(deadline: float = 300.0) -> None:
    """Waits until all workers that ``TF_CONFIG`` names have come here. Every worker, first of all.

    Call it right before the strategy is made:

      ```python
      distckpt.wait_for_workers(deadline=300.0)
      strategy = tf.distribute.MultiWorkerMirroredStrategy()
      ```

    Without it, a worker that never starts makes all others wait in TensorFlow without a word. It
    returns at once where there is nobody to wait for: without ``TF_CONFIG``, in a job of one
    worker, in an evaluator, in a job with parameter servers. It needs no TensorFlow.

    Args:
      deadline: Seconds to wait.

    Raises:
      DeadlineExceededError: Somebody has not come; the text names who, with the address. It is the
        same on all that have.
      ConfigurationError: ``TF_CONFIG`` makes no sense, or differs between the workers, two
        processes have the same index, or the chief's port is taken.
    """
    number = isinstance(deadline, (int, float)) and not isinstance(deadline, bool)
    if not number or not 0 < deadline < float("inf"):
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
      place: Who this is.
      deadline: Seconds to wait.
      say: Is told every ten seconds who is still waited for.
    """
    (_Chief if place.index == 0 else _Worker)(place, deadline, say).wait()


class Place:
    """Who a process is.

    Args:
      tasks: (job, number, address) of all workers.
      index: Its index among them.

    Attributes:
      names: What people call the workers: "worker 1".
      addresses: Their addresses, "host:port".
      index: This one's.
      job: What tells the job from others: a hash of the cluster.
    """

    def __init__(self, tasks: list[tuple[str, int, str]], index: int) -> None:
        self.names = [job if job == "chief" else f"{job} {n}" for job, n, _ in tasks]
        self.addresses = [address for _, _, address in tasks]
        self.index = index
        text = json.dumps(tasks)
        self.job = hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def of_this_process(cls) -> Place | None:
        """Returns the place of this process; None if there is nobody to meet."""
        return cls.of(tf_config.read())

    @classmethod
    def of(cls, config: dict[str, Any]) -> Place | None:
        """Returns the place of a process with this ``TF_CONFIG``; None if it meets nobody."""
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        if not isinstance(cluster, dict) or not isinstance(task, dict):
            raise ConfigurationError('TF_CONFIG: "cluster" and "task" must be objects.')
        if "ps" in cluster or task.get("type") not in _JOBS:
            return None
        tasks = [(job, n, a) for job in _JOBS for n, a in enumerate(cluster.get(job) or [])]
        me = (task.get("type"), task.get("index"))
        found = [i for i, (job, n, _) in enumerate(tasks) if (job, str(n)) == (me[0], str(me[1]))]
        if not found:
            raise ConfigurationError(
                f"TF_CONFIG says that this process is {me[0]} {me[1]!r}, and its cluster has none."
            )
        for job, n, address in tasks:
            split(address, f"{job} {n}")
        return cls(tasks, found[0]) if len(tasks) > 1 else None

    def who(self, index: int) -> str:
        """Returns "worker 1 (10.0.0.7:2222)"."""
        return f"{self.names[index]} ({self.addresses[index]})"

    def chiefs(self) -> tuple[str, int]:
        """Returns host and port of the chief."""
        return split(self.addresses[0], self.names[0])


class _Chief:
    """Waits for the others at its own address."""

    def __init__(self, place: Place, deadline: float, say: Callable[[str], None]) -> None:
        self._place = place
        self._seconds = deadline
        self._news = _News(say)
        self._end = time.monotonic() + deadline
        self._here: dict[int, socket.socket] = {}  # by worker

    def wait(self) -> None:
        with _listening(self._place) as listener, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            try:
                while len(self._here) < len(self._place.names) - 1:
                    if time.monotonic() >= self._end:
                        raise self._too_late()
                    self._news.say(lambda: f"waiting for {self._absent()}")
                    for key, _ in selector.select(min(1.0, self._end - time.monotonic())):
                        self._look(listener, key.fileobj, selector)
            except DistckptError as error:
                self._answer({"error": type(error).__name__, "text": str(error)})
                raise
            self._answer({})

    def _look(self, listener: socket.socket, ready: Any, selector: Any) -> None:
        """Takes in who knocks; forgets who has gone again."""
        if ready is not listener:
            if not _is_open(ready):
                selector.unregister(ready)
                ready.close()
                self._here = {w: link for w, link in self._here.items() if link is not ready}
            return
        with contextlib.suppress(OSError):
            link, _ = listener.accept()
            worker = self._greet(link)
            if worker is None:
                link.close()
            else:
                self._here[worker] = link
                selector.register(link, selectors.EVENT_READ)

    def _greet(self, link: socket.socket) -> int | None:
        """Returns which worker has come; None if it is none of ours, or not welcome."""
        link.settimeout(2.0)
        hello = _receive(link)
        worker = hello.get("worker") if hello else None
        if hello is None or not isinstance(worker, int) or isinstance(worker, bool):
            return None  # a port scanner, or a worker that is already making its strategy
        name = f"{hello.get('host')} (pid {hello.get('pid')})"
        if hello.get("job") != self._place.job or not 0 < worker < len(self._place.names):
            text = f"{name} came to {self._place.who(0)} with another cluster in its TF_CONFIG."
        elif worker in self._here and _is_open(self._here[worker]):
            text = (
                f"{name} says that it is {self._place.who(worker)}, and another process does so, "
                "too. Give each its own index in TF_CONFIG; or end the one that is left over."
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
        for link in self._here.values():  # who closes first keeps the port busy: let them
            with contextlib.suppress(OSError), link:
                link.settimeout(1.0)
                link.recv(1)

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"Of {len(self._place.names)} workers in TF_CONFIG, these have not started within "
            f"{self._seconds:g} s: {self._absent()}. Look at their logs; or correct TF_CONFIG."
        )

    def _absent(self) -> str:
        absent = [i for i in range(1, len(self._place.names)) if i not in self._here]
        return ", ".join(map(self._place.who, absent))


class _Worker:
    """Goes to the chief, again and again, and waits for its word."""

    def __init__(self, place: Place, deadline: float, say: Callable[[str], None]) -> None:
        self._place = place
        self._seconds = deadline
        self._news = _News(say)
        self._end = time.monotonic() + deadline
        self._reason = "nobody answers"

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
            f"This is {self._place.who(self._place.index)}. Look at the other's log; or correct "
            "TF_CONFIG."
        )

    def _ask(self) -> dict[str, Any] | None:
        """Returns the chief's word; None if it cannot be reached now."""
        hello = {"worker": self._place.index, "job": self._place.job}
        hello |= {"host": socket.gethostname(), "pid": os.getpid()}
        try:
            left = max(0.1, self._end - time.monotonic())
            with socket.create_connection(self._place.chiefs(), min(5.0, left)) as link:
                _send(link, hello)
                link.settimeout(left + _GRACE)
                answer = _receive(link)
        except OSError as error:
            self._reason = str(error)
            return None
        if answer is None:
            self._reason = "it has ended, or is none of ours"
        return answer


class _News:
    """Tells somebody now and then what is waited for.

    Args:
      say: Who is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next = time.monotonic() + _SAY_EVERY

    def say(self, text: Callable[[], str]) -> None:
        """Tells it, if it is time to."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_EVERY
            self._say(text())


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """Listens where the chief is to be found.

    In a job of one machine that is its address. Elsewhere it is all interfaces, as TensorFlow's
    server does: by its own name a machine may find a loopback address, which others do not reach.
    """
    host, port = place.chiefs()
    name = host if _LOOPBACK.fullmatch(host) else ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((name, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigurationError(
            f"{place.who(0)} cannot listen at its own address: {error}. Is the port taken, by a "
            "process that is left over from another start?"
        ) from error
    with listener:
        yield listener


def split(address: object, who: str) -> tuple[str, int]:
    """Returns host and port of an address in ``TF_CONFIG``.

    Raises:
      ConfigurationError: It is none; the text says of `who`.
    """
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f'TF_CONFIG: the address of {who} must be like "host:2222", got {address!r}.'
        )
    return host.strip("[]"), int(port)


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket) -> dict[str, Any] | None:
    """Returns the message that comes; None if it is none."""
    data = b""
    while not data.endswith(b"\n"):
        more = link.recv(_LONGEST)
        data += more
        if not more or len(data) > _LONGEST:
            return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _is_open(link: socket.socket) -> bool:
    """Returns whether the other side still waits for our word."""
    try:
        link.setblocking(False)
        return bool(link.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
