"""launch/setup_venv.sh, as far as it goes without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launch" / "setup_venv.sh"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with nothing in it but the script."""
    root = tmp_path / "a clone"
    (root / "launch").mkdir(parents=True)
    (root / "distckpt").mkdir()
    (root / "pyproject.toml").touch()
    (root / "constraints.txt").touch()
    for name in (SCRIPT.name, "pythons.sh"):
        shutil.copy(SCRIPT.with_name(name), root / "launch")
    return root


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(root / "launch" / SCRIPT.name), *arguments],
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )


def fake_python(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_does_not_exist_is_refused(root: Path) -> None:
    done = run(root, PYTHON="/nowhere/python3.11")
    assert done.returncode == 1
    assert done.stderr == "setup: PYTHON is '/nowhere/python3.11', which was not found.\n"


def test_a_python_that_is_too_old_is_refused_with_its_version(root: Path, tmp_path: Path) -> None:
    python = fake_python(tmp_path / "old", "echo 'it is version 3.9' >&2; exit 1")
    done = run(root, PYTHON=python)
    assert done.returncode == 1
    assert "will not do: it is version 3.9. Needed: 3.10 to 3.13." in done.stderr
    assert not (root / ".venv").exists()


def test_a_command_of_pyenv_that_refuses_is_named_with_what_there_is_instead(
    root: Path, tmp_path: Path
) -> None:
    body = "echo 'pyenv: python3.13: command not found' >&2; echo 'Note: advice' >&2; exit 127"
    tools = tmp_path / "tools"
    tools.mkdir()
    there = fake_python(tools / "python3", f'exec {sys.executable} "$@"')
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    done = run(root, PYTHON=fake_python(tmp_path / "python3.13", body), PATH=path)
    assert done.returncode == 1
    assert "will not do: pyenv: python3.13: command not found. Needed" in done.stderr
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"Found: {version} is {Path(there).name}" in done.stderr
    assert done.stderr.count(f"{version} is ") == 1


def test_without_any_python_it_says_which_are_needed(root: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    done = run(root, PATH=str(tools), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path), PYTHON="")
    assert done.returncode == 1
    assert "no Python 3.10 to 3.13 was found" in done.stderr


def test_a_missing_ensurepip_is_named_with_the_package_to_install(
    root: Path, tmp_path: Path
) -> None:
    body = f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"'
    done = run(root, PYTHON=fake_python(tmp_path / "debian", body))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.returncode == 1
    assert "its module ensurepip is missing" in done.stderr
    assert f"sudo apt install python{version}-venv" in done.stderr
    assert not (root / ".venv").exists()


def test_an_unusable_environment_of_somebody_else_is_left_alone(root: Path) -> None:
    (root / ".venv").mkdir()
    (root / ".venv" / "precious").touch()
    done = run(root, PYTHON=sys.executable)
    assert done.returncode == 1
    assert "was not made by this script" in done.stderr
    assert (root / ".venv" / "precious").exists()


@pytest.fixture
def ready(root: Path, tmp_path: Path) -> Path:
    """A repository whose .venv looks as if [a, b] were installed, with a pip that only says so."""
    state = root / ".venv" / ".distckpt"
    state.mkdir(parents=True)
    (root / ".venv" / "bin").mkdir()
    (state / "origin").write_text(f"{root}\n")
    (root / "README.md").touch()
    (root / "LICENSE").touch()
    body = (
        f'case "$2" in pip) echo "pip $*" >>"{tmp_path}/pip";; *) exec {sys.executable} "$@";; esac'
    )
    fake_python(root / ".venv" / "bin" / "python", body)
    assert run(root, "b", "a").returncode == 0
    (tmp_path / "pip").unlink()
    return root


def test_nothing_is_installed_if_nothing_has_changed(ready: Path, tmp_path: Path) -> None:
    done = run(ready, "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "pip").exists()


def test_an_extra_is_added_to_those_that_are_there(ready: Path, tmp_path: Path) -> None:
    assert run(ready, "c").returncode == 0
    assert "[tensorflow,a,b,c]" in (tmp_path / "pip").read_text()
    assert run(ready, "a", "c").stdout == ""


def test_changed_sources_are_installed_again_with_all_extras(ready: Path, tmp_path: Path) -> None:
    (ready / "distckpt" / "new.py").touch()
    assert "something has changed" in run(ready).stdout
    assert "[tensorflow,a,b]" in (tmp_path / "pip").read_text()


def test_after_an_interrupted_installation_the_environment_is_made_again(ready: Path) -> None:
    (ready / ".venv" / ".distckpt" / "begun").touch()
    # A Python whose venv module fails, so that the test needs no network.
    fake = f'case "$2" in venv) exit 7;; *) exec {sys.executable} "$@";; esac'
    done = run(ready, PYTHON=fake_python(ready / "python", fake))
    assert "making it again" in done.stdout
    assert done.returncode == 1
    assert not (ready / ".venv" / "bin").exists()
