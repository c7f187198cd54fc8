"""The sdist and the wheel that `python -m build` makes; nothing is downloaded.

The wheel is installed into a fresh environment. The other packages, TensorFlow among them, are
those of the environment that runs this test.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import tensorflow as tf
import distckpt

print(distckpt.__file__)
counter = tf.Variable(0)
manager = distckpt.CheckpointManager(tf.train.Checkpoint(counter=counter), "run", max_to_keep=3)
restored = manager.restore_or_initialize()
print(restored, int(counter))
counter.assign_add(7)
manager.save()
"""


def run(*command: object, cwd: pathlib.Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PYTHONPATH"] = str(ROOT / "tests" / "unit" / "kit" / "startup")
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "PIP_NO_INDEX": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with both, built from a copy of the sources, because building leaves files there."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("distckpt", "tests", "launch"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", cwd=sources)
    return sources / "dist"


@pytest.fixture(scope="module")
def fresh(built: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The commands of an environment with the wheel, which sees the packages of this one, too."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    commands = folder / "venv" / "bin"
    run(commands / "pip", "install", "--no-deps", *built.glob("*.whl"), cwd=folder)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    others = sysconfig.get_path("purelib")
    (packages / "others.pth").write_text(f"import site; site.addsitedir({others!r})\n")
    return commands


def test_the_wheel_holds_every_module_and_nothing_else(built: pathlib.Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "distckpt").rglob("*.py")]
    packaged = [name for name in names if ".dist-info/" not in name]
    assert sorted(packaged) == sorted([*modules, "distckpt/py.typed"])
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_the_wheel_is_built_from(built: pathlib.Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "distckpt/py.typed"} <= names


def test_the_wheel_saves_and_restores_from_an_empty_directory(
    fresh: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = run(fresh / "python", "-c", PROGRAM, cwd=tmp_path).splitlines()
    second = run(fresh / "python", "-c", PROGRAM, cwd=tmp_path).splitlines()
    assert pathlib.Path(first[0]).is_relative_to(fresh.parent)
    assert first[1] == "None 0"
    assert second[1] == "run/ckpt-1 7"
    assert "ckpt-2" in run(fresh / "distckpt", "ls", "run", cwd=tmp_path)


def test_with_any_build_of_tensorflow_the_wheel_needs_nothing_more(
    fresh: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """So it brings no TensorFlow along: without an index, pip could not install one."""
    printed = run(fresh / "pip", "install", "--dry-run", "distckpt", cwd=tmp_path)
    assert "Requirement already satisfied: distckpt" in printed
    assert "Would install" not in printed
