"""Runs tasks in parallel on plain threads, or one after the other if no thread can be started.

A ThreadPoolExecutor refuses work while the interpreter ends, exactly when the last save of a
program may still have to be written. From Python 3.12 on, the interpreter then refuses plain
threads, too, and so does a host or container at its thread limit.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


def run_all(tasks: Sequence[Callable[[], _Result]], threads: int) -> list[_Result]:
    """Runs `tasks`, `threads` at a time; on the caller's thread if there is one task or thread.

    If not all threads can be started, the caller's thread runs some tasks. After an error no other
    task is begun; running tasks are waited for.

    Returns:
      The results, in the order of the tasks.

    Raises:
      BaseException: The error of the first failed task (by order, not by time).
    """
    if threads <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    shared = _Tasks(tasks)
    names = [f"distckpt-part-{n}" for n in range(min(threads, len(tasks)))]
    started = 0
    try:
        with contextlib.suppress(RuntimeError):
            for name in names:
                threading.Thread(target=shared.work, name=name).start()
                started += 1
        if started < len(names):
            shared.work(Exception)
        shared.wait()
    except BaseException as error:  # Ctrl-C: no task may still run when it is raised
        shared.stop(error)
        shared.wait()
        raise
    return shared.results()


class _Tasks(Generic[_Result]):
    """Tasks that several threads share.

    Their end is not told by `Thread.join`: interrupted, it takes a running thread for ended (Python
    up to 3.12).
    """

    def __init__(self, tasks: Sequence[Callable[[], _Result]]) -> None:
        self._tasks = tasks
        self._changed = threading.Condition()
        self._caller = threading.get_ident()  # an interrupt may hit it at any point
        self._next = 0
        self._running = 0  # on other threads
        self._results: dict[int, _Result] = {}
        self._errors: dict[int, BaseException] = {}

    def work(self, caught: type[BaseException] = BaseException) -> None:
        """Runs tasks until none is left, or one has failed. On any thread."""
        while (number := self._take()) is not None:
            try:
                self._results[number] = self._tasks[number]()
            except caught as error:
                self._errors[number] = error
            finally:
                with self._changed:
                    self._running -= self._is_elsewhere
                    self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            if self._errors or self._next == len(self._tasks):
                return None
            self._next += 1
            self._running += self._is_elsewhere
            return self._next - 1

    @property
    def _is_elsewhere(self) -> bool:
        return threading.get_ident() != self._caller

    def stop(self, error: BaseException) -> None:
        """Makes sure that no other task is begun."""
        with self._changed:
            self._errors.setdefault(len(self._tasks), error)

    def wait(self) -> None:
        """Waits until no task is running, and none will be begun."""
        with self._changed:
            self._changed.wait_for(self._is_over)

    def _is_over(self) -> bool:
        return not self._running and (bool(self._errors) or self._next == len(self._tasks))

    def results(self) -> list[_Result]:
        """Returns the results, or raises the error of the first failed task."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[number] for number in range(len(self._tasks))]
