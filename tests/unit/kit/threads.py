"""Threads that stand for the workers of a job."""

from __future__ import annotations

import threading


def run_in_threads(function, arguments, patience=120.0):
    """Calls ``function(each)`` for each of `arguments`, all at once; fails if one of them hangs."""
    threads = [threading.Thread(target=function, args=(each,), daemon=True) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience)
    assert not any(thread.is_alive() for thread in threads), "a worker hangs"
