"""Trains launch/digits.py on two workers, kills one of them halfway, and tells what happens.

Nothing is staged. The training runs under ``distckpt launch`` as any other would and does not know
what will happen. This program reads its output, as a person would; once more than half of the steps
are done, it sends SIGKILL to the process of worker 1, as ``kill -9`` does.

Exit codes: 0 if the training was resumed from the last committed checkpoint, came to its end, and
recognises enough digits; 1 if not, with the reasons; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path

from report import Checkpoints
from screen import Screen
from story import Story
from training import Training

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "launch" / "digits.py"
WORKERS = 2
VICTIM = 1
LEAST_ACCURACY = 0.95
LEAST_STEPS = 300  # there is a checkpoint every 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="steps to train (default: 600)")
    parser.add_argument(
        "--directory", type=Path, help="a new directory for this run (default: .quickstart/run-N)"
    )
    arguments = parser.parse_args()
    if arguments.steps < LEAST_STEPS:
        parser.error(f"--steps must be at least {LEAST_STEPS}, or there is nothing to resume from")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    screen = Screen()
    try:
        directory = make_directory(arguments.directory)
        return train(screen, directory, arguments.steps)
    except KeyboardInterrupt:
        screen.print("Interrupted; the workers are stopped.", "bold red")
        return 130
    except OSError as error:
        screen.print(f"FAILED: {error}", "bold red")
        return 1


def train(screen: Screen, directory: Path, steps: int) -> int:
    """Runs everything; returns the exit code."""
    checkpoints = Checkpoints(directory / "checkpoints")
    story = Story()
    command = training_command(directory, steps)
    screen.print(f"{WORKERS} workers train on handwritten digits; one of them will be killed.")
    screen.print(f"$ {shlex.join(command)}\n", "dim")
    screen.say(f"starting {WORKERS} workers; TensorFlow takes some seconds to load")
    try:
        with screen, Training(command) as training:
            for line in training.lines():
                news = story.read(line)
                checkpoints.look()
                if news:
                    screen.say(news.text, news.style)
                screen.show(story.now)
                if story.killed_at is None and story.step > steps / 2 and VICTIM in story.pids:
                    kill(story, screen)
            problems = story.problems(training.wait(), LEAST_ACCURACY)
    except TimeoutError as error:
        problems = [str(error)]
    if checkpoints:
        screen.print()
        screen.console.print(checkpoints.table())
    if problems:
        explain_failure(screen, directory, problems)
        return 1
    explain_success(screen, story, directory, steps)
    return 0


def kill(story: Story, screen: Screen) -> None:
    """Kills the victim, as the operating system does when memory is short."""
    with contextlib.suppress(ProcessLookupError):  # then the launcher will say how it ended
        os.kill(story.pids[VICTIM], signal.SIGKILL)
    story.kill()
    screen.show(story.now)
    text = f"worker {VICTIM} (pid {story.pids[VICTIM]}) killed (SIGKILL) at step {story.step}"
    screen.say(f"{text}; the last committed step is {story.saved}", "bold red")


def training_command(directory: Path, steps: int) -> list[str]:
    return [
        *distckpt_command(),
        *("launch", "--workers", str(WORKERS), "--max-restarts", "1"),
        *("--log-dir", shown(directory / "logs"), "--"),
        *program_command(directory, steps),
    ]


def distckpt_command() -> list[str]:
    script = Path(sys.executable).with_name("distckpt")
    return [shown(script)] if script.exists() else [shown(sys.executable), "-m", "distckpt"]


def program_command(directory: Path, steps: int) -> list[str]:
    checkpoints = shown(directory / "checkpoints")
    python, program = shown(sys.executable), shown(PROGRAM)
    return [python, program, "--directory", checkpoints, "--steps", str(steps)]


def make_directory(wanted: Path | None) -> Path:
    """Creates and returns the directory of this run."""
    if wanted is not None:
        wanted.mkdir(parents=True)
        return wanted
    parent = REPOSITORY / ".quickstart"
    parent.mkdir(exist_ok=True)
    (parent / ".gitignore").write_text("*\n")
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            (parent / f"run-{number}").mkdir()
            return parent / f"run-{number}"
        number += 1


def shown(path: str | Path) -> str:
    """Returns `path` as short as it can be given on a command line here."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    if relative.startswith(os.pardir):
        return absolute
    return relative if os.sep in relative else os.path.join(os.curdir, relative)


def explain_failure(screen: Screen, directory: Path, problems: list[str]) -> None:
    screen.print(
        f"\nThe whole output of the workers is in {shown(directory / 'logs')}. With "
        "TF_CPP_MIN_LOG_LEVEL=0 in the environment, TensorFlow says more."
    )
    screen.print(f"FAILED: {'; '.join(problems)}.", "bold red")


def explain_success(screen: Screen, story: Story, directory: Path, steps: int) -> None:
    where = shown(directory / "checkpoints")
    screen.print(
        f"OK: worker {VICTIM} was killed at step {story.killed_at}, all resumed at step "
        f"{story.resumed_at[VICTIM]}, and {story.accuracy:.1%} of the test digits are recognised.",
        "bold green",
    )
    listing = (
        f"import tensorflow as tf; r = tf.train.load_checkpoint({json.dumps(where)}); "
        "[print(*item) for item in sorted(r.get_variable_to_shape_map().items())]"
    )
    further = shlex.join([*distckpt_command(), "launch", "--workers", "3", "--"])
    screen.print(
        f"""
The checkpoints are in {where}, the output of the workers in {shown(directory / "logs")}.

Try next:

  # Read the newest one with TensorFlow alone: it is a plain TensorFlow checkpoint.
  {shlex.join([shown(sys.executable), "-c", listing])}

  # Train 200 steps more, this time on 3 workers.
  {further} {shlex.join(program_command(directory, steps + 200))}

  # See how little of the program is about it.
  grep -n -B 4 -A 2 distckpt.CheckpointManager {shlex.quote(shown(PROGRAM))}"""
    )


if __name__ == "__main__":
    sys.exit(main())
