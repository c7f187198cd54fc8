"""What the shell completes, asked as the shells ask: through the console script."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from .conftest import SCRIPT


def complete(*words, cwd=None):
    """Returns what bash is offered for the last of `words`."""
    environment = {
        **os.environ,
        "_DISTCKPT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["distckpt", *map(str, words)]),
        "COMP_CWORD": str(len(words)),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    done = subprocess.run(
        [SCRIPT], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "tensorflow" not in done.stderr
    assert "Traceback" not in done.stderr
    return [tuple(line.split(",", 1)) for line in done.stdout.splitlines()]


def plain(*words, **options):
    found = complete(*words, **options)
    assert {kind for kind, _ in found} <= {"plain"}
    return [value for _, value in found]


def test_commands():
    assert plain("") == sorted(plain(""))
    assert {"ls", "show", "verify", "doctor", "launch"} <= set(plain(""))
    assert plain("un") == ["unpin"]
    assert plain("p") == ["pin", "prune"]


def test_options_and_their_choices(run):
    assert "--note" in plain("verify", "--")
    assert plain("doctor", "--w") == ["--workers"]
    assert plain("export", run, "x", "--to", "") == ["plain", "npz", "safetensors"]


@pytest.mark.parametrize("command", ["show", "verify", "diff", "export", "pin", "import"])
def test_checkpoints_of_a_directory(run, command):
    names = [f"{run}/ckpt-{number}" for number in (2, 3, 4, 5)]
    assert plain(command, f"{run}/") == names
    assert plain(command, f"{run}/ckpt-3") == names[1:2]


def test_both_sides_of_a_difference(run):
    assert plain("diff", f"{run}/ckpt-2", f"{run}/ckpt-5") == [f"{run}/ckpt-5"]


def test_checkpoints_where_one_stands(run):
    assert plain("show", "ck", cwd=run) == ["ckpt-2", "ckpt-3", "ckpt-4", "ckpt-5"]
    assert plain("show", "run/ckpt-4", cwd=run.parent) == ["run/ckpt-4"]


def test_what_is_pinned(shell, run):
    assert complete("unpin", f"{run}/") == [("dir", f"{run}/")]
    shell("pin", run / "ckpt-4")
    assert plain("unpin", f"{run}/") == [f"{run}/ckpt-4"]


@pytest.mark.parametrize("command", ["ls", "gc", "prune", "watch", "doctor", "timeline"])
def test_directories_are_the_shell_s_own_to_complete(command, run):
    assert complete(command, f"{run}") == [("dir", f"{run}")]


@pytest.mark.parametrize("word", ["/nowhere/at/all", "gs://bucket/run/", "file:///tmp/x/ck", "~"])
def test_where_there_is_nothing_there_is_no_error(word):
    assert complete("show", word) == [("dir", word)]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_in_bash_itself(run):
    script = f"""
eval "$(_DISTCKPT_COMPLETE=bash_source distckpt)"
COMP_WORDS=(distckpt show {run}/ckpt-5); COMP_CWORD=2
_distckpt_completion distckpt
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = os.pathsep.join([os.path.dirname(SCRIPT), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == f"{run}/ckpt-5\n", done.stderr


@pytest.mark.parametrize("shell_", ["zsh", "fish"])
def test_scripts_for_other_shells(shell_):
    environment = {**os.environ, "_DISTCKPT_COMPLETE": f"{shell_}_source"}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "_DISTCKPT_COMPLETE" in done.stdout
