"""Makes the pictures of terminals in the documentation by running the commands that they show.

    python docs/screenshots [ls doctor …]

It trains launch/digits.py's model on two workers, runs each command on the resulting checkpoints,
in a terminal of its own, and writes docs/images/<name>.svg. Nothing is edited, except that the
temporary folder appears as /checkpoints, and that quickstart.svg leaves a table out. distckpt must
be installed. This takes about two minutes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import terminal

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
JOB = [sys.executable, str(pathlib.Path(__file__).parent / "job.py")]
BIN = os.path.dirname(sys.executable)
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TF_CONFIG")},
    "PATH": os.pathsep.join([BIN, os.environ["PATH"]]),
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


class Studio:
    """Takes the pictures in a temporary folder.

    Args:
      folder: The folder; it contains ``run-1``, a directory of checkpoints.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def train(self, directory: str, *options: str) -> subprocess.Popen[bytes]:
        """Starts the job on two workers."""
        words = ["distckpt", "launch", "--workers", "2", "--", *JOB, directory, *options]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, cwd=self.folder, env=ENVIRONMENT, stdout=quiet, stderr=quiet)

    def run(self, line: str) -> None:
        """Runs a command that is not shown."""
        subprocess.run(shlex.split(line), cwd=self.folder, env=ENVIRONMENT, check=True)

    def take(self, name: str, *lines: str, best: Callable[[str], int] = lambda text: 0) -> None:
        """Runs command lines in sequence, and draws their output."""
        shown: list[str] = []
        for line in lines:
            shown += ["", f"\x1b[1;32m$\x1b[0m \x1b[1m{line}\x1b[0m"]
            shown += terminal.run(shlex.split(line), self.folder, ENVIRONMENT, best)
        shown = [line.replace(self.folder, "/checkpoints") for line in shown[1:]]
        terminal.draw(str(IMAGES / f"{name}.svg"), f"distckpt {name}", shown)


def ls(studio: Studio) -> None:
    """The checkpoints in a directory, and why each is kept."""
    studio.run("distckpt pin run-1/ckpt-200 --reason 'for the paper'")
    studio.take("ls", "distckpt ls run-1 --why")


def show(studio: Studio) -> None:
    """The tensors of a checkpoint."""
    studio.take("show", "distckpt show run-1/ckpt-500 --filter '*trainable*' --values")


def diff(studio: Studio) -> None:
    """The differences between two checkpoints."""
    studio.take("diff", "distckpt diff run-1/ckpt-400 run-1/ckpt-500 --most 8")


def verify(studio: Studio) -> None:
    """A damaged checkpoint among good ones."""
    shutil.copytree(f"{studio.folder}/run-1", f"{studio.folder}/damaged")
    path = pathlib.Path(f"{studio.folder}/damaged/ckpt-400.data-00001-of-00002")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    studio.take("verify", "distckpt verify damaged --all")


def prune(studio: Studio) -> None:
    """What other rules would delete."""
    studio.take("prune", "distckpt prune run-1 --keep 'EverySteps(400)' --max-to-keep 1 --dry-run")


def doctor(studio: Studio) -> None:
    """Two processes that meet; only one is shown."""
    words = ["distckpt", "doctor", "run-1", "--workers", "2"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, cwd=studio.folder, env=ENVIRONMENT, stdout=quiet, stderr=quiet):
        studio.take("doctor", "distckpt doctor run-1 --workers 2")


def watch(studio: Studio) -> None:
    """A job during a save of half a gigabyte."""
    os.mkdir(f"{studio.folder}/run-2")
    with studio.train("run-2", "--steps", "200", "--megabytes", "512"):
        line = "distckpt watch run-2 --interval 0.1 --for 45"
        studio.take(
            "watch", line, best=lambda text: text.count("committed") * text.count("writing")
        )


def launch(studio: Studio) -> None:
    """The quickstart: a worker is killed, and the training continues."""
    lines = quickstart_lines(studio, terminal.COLUMNS)
    lines = lines[: _first(lines, "Try next")]
    terminal.draw(str(IMAGES / "launch.svg"), "distckpt launch", lines)


def quickstart(studio: Studio) -> None:
    """The same for the first page: narrow, and without the table of checkpoints."""
    columns = 80
    lines = quickstart_lines(studio, columns)
    end = _first(lines, "OK:")
    lines = [*lines[: _first(lines, "Committed checkpoints")], *lines[end : end + 2]]
    terminal.draw(str(IMAGES / "quickstart.svg"), "bash launch/quickstart.sh", lines, columns)


def quickstart_lines(studio: Studio, columns: int) -> list[str]:
    """Returns what the quickstart prints, after its command."""
    program = ROOT / "launch" / "quickstart" / "run.py"
    folder = f"{studio.folder}/{columns}"
    os.mkdir(folder)
    words = [sys.executable, str(program), "--directory", f"{folder}/quickstart"]
    lines = terminal.run(words, folder, ENVIRONMENT, columns=columns)
    for here, there in ((folder, "/checkpoints"), (BIN, ".venv/bin"), (f"{ROOT}/", "")):
        lines = [line.replace(here, there) for line in lines]
    return ["\x1b[1;32m$\x1b[0m \x1b[1mbash launch/quickstart.sh\x1b[0m", *lines]


def _first(lines: list[str], text: str) -> int:
    return next(number for number, line in enumerate(lines) if text in line)


SCENES = {s.__name__: s for s in (ls, show, diff, verify, prune, doctor, watch, launch, quickstart)}


@contextlib.contextmanager
def studio() -> Iterator[Studio]:
    """Yields a studio with a directory of checkpoints."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        made = Studio(folder)
        if made.train("run-1").wait():
            raise RuntimeError("the training has failed")
        yield made


def main() -> None:
    """Makes the pictures named on the command line, or all."""
    with studio() as made:
        for name in sys.argv[1:] or SCENES:
            SCENES[name](made)
            print(IMAGES / f"{name}.svg", flush=True)


if __name__ == "__main__":
    main()
