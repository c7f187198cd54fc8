"""Saves often with many real processes on one machine, which have no model.

    python tests/benchmarks/many_processes.py --workers 64 --saves 100

The processes find each other through TensorFlow's coordination service, or through a
`SharedDirectory`. Calls, messages, sessions, committer and pruner are the real ones; the tensors
are files of the right size with nothing in them. The chief also merges in Python.

A worker is late if it learns of a commit more than ten seconds after the chief has published it,
the time after which a silent process counts as dead. All processes are forked from one; their
memory is what each does not share with the others (USS).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from scale_workers import EmptyState, PythonMerger, entries_of

from distckpt.calls.call_log import CallLog
from distckpt.coordination.base import Coordinator
from distckpt.core.protocol.messages import Call
from distckpt.core.protocol.moment import Moment
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.protocol.write_plan import make_plan
from distckpt.directory.managed_checkpoints import ManagedCheckpoints
from distckpt.directory.pruner import Pruner
from distckpt.messaging.keys import Keys
from distckpt.ownership.fencing import Ownership
from distckpt.preemption import grace
from distckpt.saving.chief_part import ChiefPart
from distckpt.saving.committer import Committer
from distckpt.saving.manifest_builder import Label
from distckpt.saving.phase_log import PhaseLog
from distckpt.saving.save_session import SaveSession
from distckpt.saving.shard_writer import ShardWriter
from distckpt.saving.subject import Subject
from distckpt.storage.local import LocalStorage

THROUGH = ("tensorflow", "directory")
LATE = 10.0  # seconds
PATIENCE = Patience(600.0)


def measure(through: str, workers: int, saves: int, entries: int) -> dict[str, Any]:
    """Returns what happened; see `table`."""
    if through == "tensorflow":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        import tensorflow  # noqa: F401 - the processes are forked with it
    folder = tempfile.mkdtemp(prefix="many-")
    context = multiprocessing.get_context("fork")
    arguments = (folder, through, _ports(workers), saves, entries)
    try:
        processes = [context.Process(target=_run, args=(n, *arguments)) for n in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found = [_read(folder, worker) for worker in range(workers)]
        return {"through": through, "workers": workers, "saves": saves, **_summary(found)}
    finally:
        shutil.rmtree(folder)


def run_apart(through: str, workers: int, saves: int, entries: int) -> dict[str, Any]:
    """Returns what `measure` returns, from a new Python, which may be forked safely."""
    command = [sys.executable, __file__, "--json", "--through", through]
    numbers = {"--workers": workers, "--saves": saves, "--entries": entries}
    command += [str(word) for option in numbers.items() for word in option]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows[0]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| Through | Workers | Commits | Seconds of a save (median, longest) | Chief's CPU a save "
        "| CPU of another worker | Threads for calls, at most | Memory of a process, at most "
        "| Late | Errors |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        late = "; ".join(f"worker {n}: {times} times" for n, times in sorted(row["late"].items()))
        lines.append(
            f"| {row['through']} | {row['workers']} | {row['commits']} "
            f"| {row['median']:.2f}, {row['longest']:.2f} | {1000 * row['chief']:.0f} ms "
            f"| {1000 * row['other']:.1f} ms | {row['threads']} | {row['memory'] / 1e6:.0f} MB "
            f"| {late or 'nobody'} | {'; '.join(row['errors']) or 'none'} |"
        )
    return "\n".join(lines)


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    chief, others = found[0], found[1:]
    late: dict[int, int] = {}
    for worker, one in enumerate(found):
        for told, ended in zip(chief["told"], one["heard"], strict=False):
            if ended - told > LATE:
                late[worker] = late.get(worker, 0) + 1
    seconds = [
        max(one["heard"][n] for one in found) - chief["began"][n]
        for n in range(min(len(one["heard"]) for one in found))
    ]
    return {
        "commits": len(chief["told"]),
        "median": statistics.median(seconds) if seconds else 0.0,
        "longest": max(seconds, default=0.0),
        "chief": chief["cpu"],
        "other": statistics.median(one["cpu"] for one in others),
        "threads": max(one["threads"] for one in found),
        "memory": max(one["memory"] for one in found),
        "late": late,
        "errors": [f"worker {n}: {one['error']}" for n, one in enumerate(found) if one["error"]],
    }


def _read(folder: str, worker: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(Path(folder, f"result-{worker}").read_text())
    except FileNotFoundError:
        nothing = {"told": [], "began": [], "heard": [], "cpu": 0.0, "threads": 0, "memory": 0}
        return {**nothing, "error": "it died"}
    return found


def _ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


# --- In each process ------------------------------------------------------------------------------


def _run(index: int, folder: str, through: str, ports: list[int], saves: int, entries: int) -> None:
    worker = _Worker(folder, entries)
    try:
        worker.join(index, through, ports)
        for number in range(1, saves + 1):
            worker.save(number)
        worker.leave()
    except BaseException as error:
        traceback.print_exc()
        worker.error = f"{type(error).__name__}: {error}"[:300]
    Path(folder, f"result-{index}").write_text(json.dumps(worker.result()))
    sys.stdout.flush()
    os._exit(0)  # without TensorFlow's barrier at its end


class _Worker:
    """One worker, and what it has noted."""

    def __init__(self, folder: str, entries: int) -> None:
        self._folder = folder
        self._entries = entries
        self._storage = LocalStorage()
        self.error = ""
        self._began: list[float] = []
        self._told: list[float] = []  # when the outcomes were published; only the chief's
        self._heard: list[float] = []
        self._threads = 0
        self._cpu = 0.0

    def join(self, index: int, through: str, ports: list[int]) -> None:
        """Meets the other workers."""
        self._coordinator = _coordinator(self._folder, index, through, ports)
        self._note_outcomes(self._coordinator)
        self._directory = os.path.join(self._folder, "checkpoints")
        self._plan = make_plan(entries_of(self._entries), len(ports))
        self._log = CallLog(self._coordinator, "many")
        self._writer = ShardWriter(
            self._storage, self._directory, index, len(ports), durable=False, threads=1
        )
        if index == 0:
            self._make_committer()

    def _note_outcomes(self, coordinator: Coordinator) -> None:
        publish = coordinator.publish

        def noting(key: str, value: str) -> None:
            publish(key, value)
            if key.endswith("/outcome"):
                self._told.append(time.monotonic())

        coordinator.publish = noting  # type: ignore[method-assign]

    def _make_committer(self) -> None:
        storage, directory = self._storage, self._directory
        ownership = Ownership(storage, directory, durable=False)
        self._managed = ManagedCheckpoints(storage, directory, 2, None, durable=False)
        self._managed.delete = Pruner(storage, directory, ownership, durable=False).prune
        self._committer = Committer(
            storage,
            directory,
            ownership,
            PythonMerger(),
            durable=False,
            refresh=self._managed.refresh,
        )

    def save(self, number: int) -> None:
        """Saves."""
        time.sleep(random.uniform(0, 0.05))
        before = time.process_time()
        self._began.append(time.monotonic())
        moment = Moment.of(0, {"step": number})
        if self._coordinator.is_chief:
            call = Call("save", moment, save=True, name=f"ckpt-{number}", step=number)
            keys, turn = self._log.enter(call), 0
        else:
            keys, call = self._log.look("save()", PATIENCE)
            turn = self._log.join(call)
        self._session(keys, call, moment, turn)
        self._heard.append(time.monotonic())
        if self._coordinator.is_chief:
            self._log.all_came(self._log.passed - 1)
        self._cpu += time.process_time() - before
        names = [t.name for t in threading.enumerate()]
        calls = [name for name in names if name.startswith(("distckpt-wait", "distckpt-call"))]
        self._threads = max(self._threads, len(calls))

    def _session(self, keys: Keys, call: Call, moment: Moment, turn: int) -> None:
        label = Label(int(call.step))
        subject = Subject(
            call.name, self._directory, label, self._plan, EmptyState(), moment=moment
        )
        log = PhaseLog(call.name, label)
        chief = None
        if self._coordinator.is_chief:
            chief = ChiefPart(self._committer, self._managed, subject, log)
        session = SaveSession(
            self._coordinator,
            keys,
            subject,
            self._writer,
            chief,
            patience=PATIENCE,
            phase_log=log,
            turn=turn,
        )
        session.hold()
        session.run()

    def leave(self) -> None:
        """Ends; the chief last."""
        grace.leave(self._coordinator, Keys("many", "leave", 0))

    def result(self) -> dict[str, Any]:
        """Returns what it has noted."""
        return {
            "began": self._began,
            "told": self._told,
            "heard": self._heard,
            "cpu": self._cpu / max(1, len(self._heard)),
            "threads": self._threads,
            "memory": psutil.Process().memory_full_info().uss,
            "error": self.error,
        }


def _coordinator(folder: str, index: int, through: str, ports: list[int]) -> Coordinator:
    if through == "directory":
        from distckpt.coordination.shared_directory import SharedDirectory

        return SharedDirectory(os.path.join(folder, "messages"), "run", index, len(ports))
    hosts = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
    import tensorflow as tf

    from distckpt.coordination.tensorflow_service import TensorFlowService

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.distribute.MultiWorkerMirroredStrategy()
    return TensorFlowService("many")


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--saves", type=int, default=100)
    parser.add_argument("--entries", type=int, default=1000, help="how many tensors there are")
    parser.add_argument("--through", choices=THROUGH, action="append", help="default: both")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    rows = [
        measure(through, options.workers, options.saves, options.entries)
        for through in options.through or THROUGH
    ]
    print(json.dumps(rows) if options.json else table(rows))
    return 1 if any(row["late"] or row["errors"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
