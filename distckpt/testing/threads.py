"""Threads that stand for the workers of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

_Argument = TypeVar("_Argument")


def run_in_threads(
    function: Callable[[_Argument], object], arguments: Iterable[_Argument], patience: float = 300.0
) -> None:
    """Calls ``function(each)`` for each of `arguments`, all at once; raises the first error of any.

    Args:
      function: What each thread calls.
      arguments: What each thread gives it.
      patience: Seconds for a thread to end; otherwise the test fails.
    """
    failures: list[BaseException] = []

    def run(each: _Argument) -> None:
        try:
            function(each)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience)
    assert not any(thread.is_alive() for thread in threads), "a worker hangs"
    if failures:
        raise failures[0]
