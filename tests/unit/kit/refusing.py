"""A host that starts no threads: like `ulimit -u`, which does not apply to root."""

from __future__ import annotations

import threading


class Refusing:
    """Refuses to start distckpt's threads: the thread `number`, or all from that one on.

    Args:
      monkeypatch: Undoes it.
      number: The number of the first refused thread, from 0.
      more: Whether later threads are refused, too.
    """

    def __init__(self, monkeypatch, number=0, *, more=True):
        self.refused, self.count = [], 0
        start, lock = threading.Thread.start, threading.Lock()

        def refuse(thread):
            if not thread.name.startswith("distckpt"):
                return start(thread)
            with lock:
                self.count += 1
                refused = self.count > number if more else self.count == number + 1
                if refused:
                    self.refused.append(thread.name)
            if refused:
                raise RuntimeError("can't start new thread")
            return start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
