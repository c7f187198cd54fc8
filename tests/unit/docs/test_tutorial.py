"""What the tutorial says is typed and seen, typed and seen."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from .fences import ROOT, blocks_of

TUTORIAL = blocks_of(ROOT / "docs" / "tutorial.md")
PROGRAM, READ = (b.code for b in TUTORIAL if b.language == "python")
# Without the part that kills a worker: the quickstart's test does that.
RUN, RUN_WITH_THREE = (
    b.code for b in TUTORIAL if b.language == "sh" and "--max-restarts" not in b.code
)
SEEN, FILES, ENTRIES = (b.code for b in TUTORIAL if b.language == "text")


def typed(command: str, folder: pathlib.Path) -> list[str]:
    """Returns the lines that a command of the tutorial prints."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={**environment, "CUDA_VISIBLE_DEVICES": "-1", "PATH": path},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def without_pids(lines: list[str]) -> list[str]:
    """Returns the lines, sorted, as workers may overtake each other; each has its own pid."""
    return sorted(" ".join(w for w in line.split() if not w.isdigit()) for line in lines)


@pytest.mark.cluster
def test_the_tutorial_prints_and_writes_what_it_says(tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM)
    printed = [line for line in typed(RUN, tmp_path) if "restored" in line or "saved" in line]
    assert without_pids(printed) == without_pids(SEEN.splitlines())
    assert sorted(os.listdir(tmp_path / "run")) == sorted(FILES.split())

    again = [line for line in typed(RUN_WITH_THREE, tmp_path) if "restored" in line]
    assert len(again) == 3
    assert all(line.endswith("restored run/ckpt-30") for line in again)

    (tmp_path / "read.py").write_text(READ)
    assert typed("python read.py", tmp_path) == ENTRIES.splitlines()
