"""The quickstart, as it is run, but for the set-up of .venv."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distckpt
from distckpt.core import manifest_json

ROOT = Path(__file__).parents[2]
STEPS = "400"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    path = os.pathsep.join(
        filter(None, [str(Path(distckpt.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    unset = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return {**inherited, "PYTHONPATH": path}


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def interrupted(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What the quickstart has printed, and the directory of its run."""
    directory = tmp_path_factory.mktemp("quickstart") / "run"
    program = str(ROOT / "launch" / "quickstart" / "run.py")
    return run([program, "--steps", STEPS, "--directory", str(directory)], environment), directory


@pytest.mark.cluster
def test_the_quickstart_tells_of_the_kill_and_the_resumption(
    interrupted: tuple[str, Path],
) -> None:
    output, directory = interrupted
    killed = re.search(
        r"killed \(SIGKILL\) at step (\d+); the last committed step is (\d+)", output
    )
    step, safe = int(killed[1]), int(killed[2])
    assert step > int(STEPS) / 2 >= safe > 0
    assert "restarted: distckpt launch: restart 1 of 1, because worker 1 (pid " in output
    resumed = re.findall(r"worker (\d) \(pid \d+\) resumed at step (\d+) from ckpt-(\d+)", output)
    assert sorted(worker for worker, _, _ in resumed) == ["0", "1"]
    ((where, number),) = {(int(step), int(number)) for _, step, number in resumed}
    assert where == number >= safe
    assert f"OK: worker 1 was killed at step {step}, all resumed at step {where}, " in output
    assert f'load_checkpoint("{directory / "checkpoints"}")' in output


@pytest.mark.cluster
def test_its_output_is_fit_for_a_log_file(interrupted: tuple[str, Path]) -> None:
    output, _ = interrupted
    assert not re.search(r"[\r\x1b]", output)
    assert "cudart" not in output
    assert "absl" not in output


@pytest.mark.cluster
def test_its_table_shows_what_the_manifests_say(interrupted: tuple[str, Path]) -> None:
    output, directory = interrupted
    paths = list((directory / "checkpoints").glob("*.manifest.json"))
    assert {path.name for path in paths} == {f"ckpt-{n}.manifest.json" for n in (200, 300, 400)}
    for path in paths:
        found = manifest_json.parse(path.read_bytes())
        (row,) = [line for line in output.splitlines() if f"│ {found.name} " in line]
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells[1:3] == [str(found.step), "2"]
        assert cells[4] == " + ".join(f"{worker.seconds:.3f}" for worker in found.workers)


@pytest.mark.cluster
def test_the_resumed_training_ends_where_an_uninterrupted_one_does(
    interrupted: tuple[str, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    program = str(ROOT / "launch" / "digits.py")
    settings = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    command = ["-m", "distckpt", "launch", "--workers", "2", "--", sys.executable, program]
    run([*command, "--directory", str(tmp_path), "--steps", STEPS], {**environment, **settings})
    names = [f"ckpt-{STEPS}.data-0000{n}-of-00002" for n in (0, 1)] + [f"ckpt-{STEPS}.index"]
    for name in names:
        resumed = interrupted[1] / "checkpoints" / name
        assert resumed.read_bytes() == (tmp_path / name).read_bytes(), name
