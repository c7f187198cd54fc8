"""What has happened so far in a training, as told by its output. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

_START = re.compile(r"\[worker (\d+)\] pid (\d+) starts at step (\d+), from (.+)")
_STEP = re.compile(r"\[worker 0\] step (\d+)/\d+ loss (\S+)")
_SAVED = re.compile(r"\[worker 0\] saved (?:.*/)?(ckpt-(\d+))$")
_ACCURACY = re.compile(r"\[worker 0\] test accuracy ([\d.]+) on (\d+) digits")
_LAUNCHER = re.compile(r"distckpt launch: (.+)")
_RESTART = re.compile(r"distckpt launch: restart \d+ of ")

# Two kinds of lines that TF_CPP_MIN_LOG_LEVEL does not govern, because TensorFlow writes them
# before its logging has been set up. They are in the log files, as everything is.
_CHATTER = re.compile(
    r"\[worker \d+\] (WARNING: All log messages before absl|I\d{4} \d\d:\d\d:\d\d)"
)


@dataclasses.dataclass(frozen=True)
class News:
    """Something to tell: one line. With `passing`, it is only of interest at the moment."""

    text: str
    passing: bool = False
    style: str = ""


@dataclasses.dataclass
class Story:
    """The facts, updated by `read` and `kill`.

    Attributes:
      pids: Process id of each worker of the present start, by its index.
      step: The last step that was reported.
      saved: The last step with a committed checkpoint.
      killed_at: The step at which a worker was killed.
      safe: The last step with a committed checkpoint when it was killed.
      restarted: Whether the launcher has started all workers again.
      resumed_at: Where each worker began after that, by its index.
      accuracy: The share of test digits that were recognised.
    """

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

    def read(self, line: str) -> News | None:
        """Takes in a line of ``distckpt launch``; returns what to tell about it."""
        readers: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], News | None]], ...] = (
            (_CHATTER, lambda match: None),
            (_STEP, self._stepped),
            (_SAVED, self._committed),
            (_START, self._started),
            (_ACCURACY, self._tested),
            (_RESTART, self._restart),
            (_LAUNCHER, lambda match: News(f"distckpt launch: {match[1]}", style="dim")),
        )
        for pattern, reader in readers:
            if match := pattern.match(line):
                return reader(match)
        return News(line)  # an error, say: nothing is kept back that is not known

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
            where = sorted(set(self.resumed_at.values())) or "nowhere"
            found.append(f"step {self.safe} was committed, but the training resumed at {where}")
        if self.accuracy is None:
            found.append("the test accuracy was not reported")
        elif self.accuracy < least_accuracy:
            found.append(
                f"the test accuracy is {self.accuracy:.1%}, less than {least_accuracy:.0%}"
            )
        return found

    def _started(self, match: re.Match[str]) -> News:
        worker, pid, step = (int(match[n]) for n in (1, 2, 3))
        self.pids[worker] = pid
        if not self.restarted:
            return News(f"worker {worker} (pid {pid}) starts at step {step}")
        self.resumed_at[worker] = step
        text = f"worker {worker} (pid {pid}) resumed at step {step}, from {_base(match[4])}"
        return News(text, style="bold green")

    def _stepped(self, match: re.Match[str]) -> News:
        self.step = int(match[1])
        return News(f"step {self.step}, loss {match[2]}", passing=True)

    def _committed(self, match: re.Match[str]) -> News:
        self.saved = int(match[2])
        return News(f"step {self.saved}: {match[1]} is committed")

    def _tested(self, match: re.Match[str]) -> News:
        self.accuracy = float(match[1])
        return News(f"test accuracy {self.accuracy:.1%} on {match[2]} digits not trained on")

    def _restart(self, match: re.Match[str]) -> News:
        self.restarted, self.pids = True, {}
        return News(match.string, style="dim")


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]
