"""Workers that restore together, and one that restores alone."""

from __future__ import annotations

from distckpt.coordination.in_process import InProcessJob
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.messaging.keys import Keys
from distckpt.ownership.fencing import Ownership
from distckpt.restoring.restore_session import RestoreSession
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import FaultyStorage
from distckpt.testing.threads import run_in_threads


class Group:
    """Workers that restore together, as threads.

    Args:
      directories: For each worker, its directory.
      restore: Called with (worker, name, count).
      storages: For each worker, its storage.
      absent: Workers that never come.
    """

    def __init__(self, *directories, restore=None, storages=None, absent=(), **options):
        self.job = InProcessJob(len(directories))
        self.restored = [[] for _ in directories]
        self.ends = [None] * len(directories)
        self.storages = storages or [FaultyStorage(LocalStorage()) for _ in directories]
        self.managed = [
            ManagedCheckpoints(LocalStorage(), str(d), 9, None, durable=True) for d in directories
        ]
        self._directories = [str(d) for d in directories]
        self._restore = restore or (lambda worker, name, count: None)
        self._absent = absent
        patience = Patience(options.pop("deadline", 20.0), options.pop("slow_factor", 1.0))
        self._options = {"patience": patience, "verify_data": True, **options}

    def go(self):
        """Lets all restore; returns the group."""
        workers = [w for w in range(self.job.count) if w not in self._absent]
        run_in_threads(self._run, workers)
        return self

    def _do(self, worker, name, count):
        self._restore(worker, name, count)
        self.restored[worker].append(name)

    def _run(self, worker):
        session = RestoreSession(
            self.job.coordinator(worker),
            self.storages[worker],
            self._directories[worker],
            self.managed[worker],
            Keys("m", "restore", 0),
            lambda name, count: self._do(worker, name, count),
            **self._options,
        )
        try:
            self.ends[worker] = session.run()
        except BaseException as error:
            self.ends[worker] = error

    def raised(self, kind):
        """Checks that all workers raised the same error; returns its text."""
        assert [type(end) for end in self.ends] == [kind] * len(self.ends), self.ends
        texts = {str(end) for end in self.ends}
        assert len(texts) == 1, texts
        return texts.pop()


def damage(run, file):
    path = run / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def restoring(run, restore=lambda name, count: None, storage=None, managed=None):
    """Returns a session of a job of one, and its `Ownership` of the directory."""
    storage = storage or FaultyStorage(LocalStorage())
    ownership = Ownership(storage, str(run), durable=False)
    session = RestoreSession(
        InProcessJob(1).coordinator(0),
        storage,
        str(run),
        managed or ManagedCheckpoints(storage, str(run), 9, None, durable=True),
        Keys("m", "restore", 0),
        restore,
        patience=Patience(5.0),
        verify_data=True,
        memory=ownership.memory,
    )
    return session, ownership
