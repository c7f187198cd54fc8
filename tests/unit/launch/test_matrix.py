"""tests/matrix.sh, as far as it goes without installing anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIST = ROOT / "tests" / "matrix.txt"


def lines() -> list[list[str]]:
    text = LIST.read_text().splitlines()
    return [line.split() for line in text if line and not line.startswith("#")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which the script finds no Python but that in the folder "pythons"."""
    root = tmp_path / "a clone"
    for name in ("tests", "launch", "distckpt", "pythons"):
        (root / name).mkdir(parents=True)
    for name in ("tests/matrix.sh", "tests/matrix.txt", "launch/pythons.sh", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (root / name).touch()
    for name in ("bash", "dirname", "mktemp", "grep", "cp", "mkdir", "rm", "sed", "cat", "getconf"):
        (root / "pythons" / name).symlink_to(str(shutil.which(name)))
    (root / "pythons" / "touch").symlink_to(str(shutil.which("touch")))
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = {"PATH": str(root / "pythons"), "HOME": str(root), "PYENV_ROOT": str(root)}
    return subprocess.run(
        ["bash", str(root / "tests" / "matrix.sh"), *arguments],
        env={**os.environ, **paths},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def add_python(root: Path, version: str) -> Path:
    """Adds a Python that says it is `version`; its environments have a pip that always fails."""
    major, minor = version.split(".")
    answer = f"import sys; sys.version_info = ({major}, {minor}, 0, 'final', 0)"
    python = root / "pythons" / f"python{version}"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in\n'
        f'-) {{ echo "{answer}"; cat; }} | exec {sys.executable} - ;;\n'
        '\'-m venv \'*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;\n'
        f'"-m pip"*) echo "pip of {version}: no network" >&2; exit 1 ;;\n'
        f'*) exec {sys.executable} "$@" ;;\n'
        "esac\n"
    )
    python.chmod(0o755)
    return python


def test_help_says_how_to_call_it_and_ends_before_the_code(root: Path) -> None:
    done = run(root, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Tests distckpt with several versions of TensorFlow.")
    assert "tests/matrix.sh --short [VERSION ...]" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("argument", ["2.15", "2", "2.16.2", "--all", ""])
def test_a_wrong_argument_is_refused(root: Path, argument: str) -> None:
    done = run(root, "2.16", argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"matrix: '{argument}' is not one of the versions 2.16 2.17 2.18 2.19 2.20 2.21; "
        "see tests/matrix.sh --help\n"
    )


@pytest.mark.parametrize(
    ("arguments", "versions"),
    [
        ((), ["2.16", "2.17", "2.18", "2.19", "2.20", "2.21"]),
        (("--short",), ["2.16", "2.18", "2.21"]),
        (("--short", "2.17"), ["2.17"]),
        (("2.20", "2.16"), ["2.20", "2.16"]),
    ],
)
def test_without_any_python_each_version_says_what_it_needs(
    root: Path, arguments: tuple[str, ...], versions: list[str]
) -> None:
    done = run(root, *arguments)
    assert done.returncode == 1
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 2.")]
    assert rows == [f"| {version} | not installed | | | | | | | |" for version in versions]
    for version in versions:
        assert f"TensorFlow {version} needs one of Python 3.1" in done.stderr
    assert "| TensorFlow | Python | protobuf | numpy | Passed | Failed |" in done.stdout


@pytest.mark.parametrize(("version", "python"), [("2.16", "3.12"), ("2.21", "3.10")])
def test_it_takes_the_python_that_has_packages(root: Path, version: str, python: str) -> None:
    add_python(root, python)
    done = run(root, version)
    assert done.returncode == 1
    assert f"pip of {python}: no network" in done.stderr
    assert f"matrix: TensorFlow {version} could not be installed." in done.stderr


def test_a_python_that_is_too_new_for_a_version_is_not_taken(root: Path) -> None:
    add_python(root, "3.13")
    done = run(root, "2.16")
    assert "TensorFlow 2.16 needs one of Python 3.10 3.11 3.12, and none was found." in done.stderr


def test_an_unfinished_environment_is_made_again(root: Path) -> None:
    add_python(root, "3.13")
    run(root, "2.21")
    (root / ".matrix" / "2.21" / "left over").touch()
    assert (root / ".matrix" / "2.21" / "unfinished").exists()
    run(root, "2.21")
    assert not (root / ".matrix" / "2.21" / "left over").exists()


def test_the_list_names_tests_that_exist() -> None:
    for _, name in lines():
        path, _, test = name.partition("::")
        assert (ROOT / "tests" / path).exists(), name
        function = test.partition("[")[0]
        assert f"def {function}" in (ROOT / "tests" / path).read_text() if test else True, name


def test_each_line_of_the_list_is_of_one_of_the_two_forms() -> None:
    assert {form for form, _ in lines()} == {"short", "full"}
    assert all(len(line) == 2 for line in lines())
