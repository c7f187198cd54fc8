"""What has happened so far in a training, as told by its output. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

_START = re.compile(r"\[worker (\d+)\] pid (\d+) starts at step (\d+), from (?:.*/)?(.+)")
_STEP = re.compile(r"\[worker 0\] (step (\d+)/\d+ loss \S+)")
_SAVED = re.compile(r"\[worker 0\] saved (?:.*/)?(ckpt-(\d+))$")
_ACCURACY = re.compile(r"\[worker 0\] test accuracy ([\d.]+) on (\d+) digits")
_RESTART = re.compile(r"distckpt launch: restart \d+ of ")
_LAUNCHER = re.compile(r"distckpt launch: ")
_WORKER = re.compile(r"\[worker \d+\] ")

# Two kinds of lines that TF_CPP_MIN_LOG_LEVEL does not govern, because TensorFlow writes them
# before its logging has been set up. They are in the log files, as everything is.
_CHATTER = re.compile(
    r"\[worker \d+\] (WARNING: All log messages before absl|I\d{4} \d\d:\d\d:\d\d)"
)
# The last line of a traceback: "package.module.SomeError: what happened".
_ERROR = re.compile(r"(\[worker \d+\]) (?:[\w.]+\.)?(\w+Error: .*)")
_LONGEST = 90  # characters of such a line


@dataclasses.dataclass(frozen=True)
class News:
    """A line to tell."""

    text: str
    style: str = ""


@dataclasses.dataclass
class Story:
    """The facts, updated by `read` and `kill`.

    Attributes:
      now: What is going on at the moment.
      pids: Process id of each worker of the present start, by its index.
      step: The last step that was reported.
      saved: The last step with a committed checkpoint.
      killed_at: The step at which a worker was killed.
      safe: The last step with a committed checkpoint when it was killed.
      restarted: Whether the launcher has started all workers again.
      resumed_at: Where each worker began after that, by its index.
      accuracy: The share of test digits that were recognised.
    """

    now: str = "the workers are starting"
    pids: dict[int, int] = dataclasses.field(default_factory=dict)
    step: int = 0
    saved: int = 0
    killed_at: int | None = None
    safe: int = 0
    restarted: bool = False
    resumed_at: dict[int, int] = dataclasses.field(default_factory=dict)
    accuracy: float | None = None

    def kill(self) -> None:
        """Notes that a worker has been killed just now."""
        self.killed_at, self.safe = self.step, self.saved
        self.now = "the launcher stops the other workers"

    def read(self, line: str) -> News | None:
        """Takes in a line of ``distckpt launch``; returns what to tell about it."""
        readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], News | None]], ...] = (
            (_CHATTER, lambda match: None),
            (_STEP, self._stepped),
            (_SAVED, self._committed),
            (_START, self._started),
            (_ACCURACY, self._tested),
            (_RESTART, self._again),
            (_LAUNCHER, lambda match: News(line, "dim")),
        )
        for pattern, reader in readers:
            if match := pattern.match(line):
                return reader(match)
        if self.killed_at is not None and not self.restarted and _WORKER.match(line):
            return _bereaved(line)
        return News(line)  # what is not known may be an error, so nothing of it is kept back

    def problems(self, exit_code: int, least_accuracy: float) -> list[str]:
        """Returns why the training, which has ended, is not a success; [] if it is one."""
        found = []
        if exit_code:
            found.append(f"the training ended with exit code {exit_code}")
        if self.killed_at is None:
            found.append("no worker was killed, because half of the steps were never reported")
        elif not self.restarted:
            found.append("the workers were not started again")
        elif not self.resumed_at or min(self.resumed_at.values()) < max(1, self.safe):
            where = ", ".join(str(step) for step in sorted(set(self.resumed_at.values())))
            found.append(f"step {self.safe} was committed, but resumed was at: {where or 'none'}")
        if self.accuracy is None:
            found.append("no test accuracy was reported")
        elif self.accuracy < least_accuracy:
            found.append(f"the test accuracy is {self.accuracy:.1%}, below {least_accuracy:.1%}")
        return found

    def _started(self, match: re.Match[str]) -> News:
        worker, pid, step = (int(match[n]) for n in (1, 2, 3))
        self.pids[worker] = pid
        if self.restarted:
            self.resumed_at[worker] = step
        if step == 0:
            return News(f"worker {worker} (pid {pid}) starts at step 0")
        text = f"worker {worker} (pid {pid}) resumed at step {step} from {match[4]}"
        return News(text, "bold green")

    def _stepped(self, match: re.Match[str]) -> None:
        self.now, self.step = match[1], int(match[2])

    def _committed(self, match: re.Match[str]) -> News:
        self.saved = int(match[2])
        return News(f"step {self.saved}: {match[1]} is committed")

    def _tested(self, match: re.Match[str]) -> News:
        self.accuracy, self.now = float(match[1]), "the workers are ending"
        return News(f"test accuracy {self.accuracy:.1%} on {match[2]} digits not trained on")

    def _again(self, match: re.Match[str]) -> News:
        self.restarted, self.pids, self.now = True, {}, "the workers are starting again"
        return News(f"restarted: {match.string}", "dim")


def _bereaved(line: str) -> News | None:
    """Returns the gist of what a worker writes that has lost another: an error, in many lines."""
    match = _ERROR.match(line)
    return (
        News(f"{match[1]} {match[2][:_LONGEST]} (the rest is in its log)", "dim") if match else None
    )
