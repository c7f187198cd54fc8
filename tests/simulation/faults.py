"""What may befall a process at an event of its own."""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING

from .network import HEARTBEAT
from .storage import FAILING, Faults
from .world import Task

if TYPE_CHECKING:
    from .process import Process
    from .run import Run

CODES = (errno.EIO, errno.ENOSPC, errno.EROFS)
# Short enough not to be noticed, longer than a deadline, and long enough to be replaced.
PAUSES = (0.5, 5.0, 12.0, 40.0, 200.0)


def crash(run: Run, process: Process, task: Task) -> None:
    """The process is killed; what it has written stays."""
    process.job.lose(process.index, "its process died", run.choices.of(0.0, HEARTBEAT))
    run.world.kill(task)


def machine(run: Run, process: Process, task: Task) -> None:
    """The process's machine goes down: what it has written but not flushed is lost, or torn."""
    if run.settings.durable:
        run.disk.lose_unflushed(process.name, run.torn)
    crash(run, process, task)


def power(run: Run, process: Process, task: Task) -> None:
    """All processes die, and the server keeps what was flushed, and what it likes."""
    for other in run.processes:
        if not other.ended:
            other.struck = True
            other.task.dead = True
            other.task.wake = other.task.asleep_until = 0.0
            other.job.lose(other.index, "the power failed", 0.0)
    if run.settings.durable:
        run.disk.lose_power(lambda: run.choices.below(2) == 1, run.torn)
        run.oracle.after_a_loss()
    run.world.kill(task)


def pause(run: Run, process: Process, task: Task) -> None:
    """The process is stopped; if it takes long, it is declared dead, and goes on all the same."""
    seconds = run.choices.of(*PAUSES)
    if seconds > HEARTBEAT:
        process.job.lose(process.index, "no heartbeat", HEARTBEAT)
        after = run.choices.of(seconds, seconds + 3.0, math.inf)
        if after < math.inf:
            process.job.cut_off(process.index, after, blame=process.index)
    run.world.pause(task, seconds)


def hang(run: Run, process: Process, task: Task) -> None:
    """The process is stuck, but its heart beats: nobody is told that it is dead."""
    run.world.pause(task, PAUSES[-1])


def disconnect(run: Run, process: Process, task: Task) -> None:
    """The process loses its connection; the chief's others do, for the store is with the chief."""
    if process.index == 0:
        process.job.lose(0, "it cannot be reached", run.choices.of(0.0, HEARTBEAT))
    else:
        process.job.cut_off(process.index, 0.0, blame=process.index)
        process.job.lose(process.index, "no heartbeat", HEARTBEAT)


def missed_heartbeats(run: Run, process: Process, task: Task) -> None:
    """The process is declared dead, and lives; it learns of it later, or never."""
    process.job.lose(process.index, "no heartbeat", 0.0)
    if process.index and run.choices.below(2):
        process.job.cut_off(process.index, 3.0, blame=process.index)


def fail_once(run: Run, process: Process, task: Task) -> None:
    """The process's next operation on the disk fails; it may be done all the same."""
    code = run.choices.of(*CODES)
    process.storage.faults.fail_next(code, is_done=run.choices.below(2) == 1)


def fail_on(run: Run, process: Process, task: Task) -> None:
    """For a while, nothing that this process changes on the disk works."""
    process.storage.faults.fail_until(run.choices.of(*CODES), run.world.now + FAILING)


def fail_all(run: Run, process: Process, task: Task) -> None:
    """For a while, nothing that anybody changes on the disk works."""
    everybody: Faults = run.everybody
    everybody.fail_until(run.choices.of(*CODES), run.world.now + FAILING)
    for other in run.processes:
        other.struck = True


def slow(run: Run, process: Process, task: Task) -> None:
    """From now on, each change that this process makes on the disk takes seconds."""
    process.storage.faults.slow_down(run.choices.of(0.3, 2.0, 4.0))


def second_job(run: Run, process: Process, task: Task) -> None:
    """Somebody starts another job on the same directory."""
    run.start_job(by_mistake=True)


KINDS = (
    crash,
    crash,
    crash,
    machine,
    power,
    power,
    pause,
    pause,
    pause,
    hang,
    hang,
    disconnect,
    missed_heartbeats,
    fail_once,
    fail_once,
    fail_on,
    fail_all,
    slow,
    slow,
    second_job,
    second_job,
)
