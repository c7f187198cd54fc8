"""Does several things at the same time, on plain threads.

Not with a ThreadPoolExecutor: that refuses work while the interpreter ends, which is just when the
last save of a program may still have to be written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Result = TypeVar("_Result")


def run_all(tasks: Sequence[Callable[[], _Result]], threads: int) -> list[_Result]:
    """Runs `tasks`, `threads` of them at a time; a single one, or thread, in the caller's.

    After an error no other task is begun; those that run are waited for.

    Returns:
      What each returned, in their order.

    Raises:
      BaseException: What the first of them (by order, not by time) raised.
    """
    if threads <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    results: dict[int, _Result] = {}
    errors: dict[int, BaseException] = {}
    left = iter(range(len(tasks)))
    lock = threading.Lock()

    def take() -> int | None:
        with lock:
            return None if errors else next(left, None)

    def work() -> None:
        while (number := take()) is not None:
            try:
                results[number] = tasks[number]()
            except BaseException as error:
                errors[number] = error

    crew = [
        threading.Thread(target=work, name=f"distckpt-part-{n}")
        for n in range(min(threads, len(tasks)))
    ]
    started: list[threading.Thread] = []
    try:
        for thread in crew:
            thread.start()
            started.append(thread)
        for thread in crew:
            thread.join()
    except BaseException as error:  # Ctrl-C: nothing of this may still go on when it is heard of
        errors[len(tasks)] = error
        for thread in started:
            thread.join()
        raise
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(tasks))]
