from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")


def test_a_line_for_each_save(shell, run):
    lines = shell("timeline", run).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "ckpt-2, step 20",
        "ckpt-3, step 30",
        "ckpt-4, step 40",
        "ckpt-5, step 50",
    ]
    assert len(shell("timeline", run, "--last", "1").splitlines()) == 1


def test_json(shell, run):
    document = shell.json("timeline", run, "--last", "2")
    last = document["saves"][-1]
    assert (last["name"], last["straggler"]) == ("ckpt-5", None)
    (worker,) = last["workers"]
    names = [phase["name"] for phase in worker["phases"]]
    assert names[0] == "hold"
    assert "write" in names
    assert worker["own_seconds"] > 0


@pytest.mark.parametrize(
    ("name", "begins"), [("t.png", b"\x89PNG"), ("t.svg", b"<?xml"), ("t.html", b"<!doctype html>")]
)
def test_pictures(shell, run, tmp_path, name, begins):
    shell("timeline", run, "-o", tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(begins)
    if name == "t.html":
        assert b"<svg" in content
        assert b"ckpt-5, step 50" in content
        assert b"http://" not in content.replace(b"http://www.w3.org", b"").replace(
            b"http://purl.org", b""
        ).replace(b"http://creativecommons.org", b"")
    assert not [n for n in os.listdir(tmp_path) if n.endswith(".tmp")]


def test_bad_input(shell, run, tmp_path):
    assert "must end with .html, .png or .svg" in shell("timeline", run, "-o", "t.pdf", code=2)
    assert "Error: " in shell("timeline", run, "-o", tmp_path / "no" / "t.png", code=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert shell("timeline", empty) == f"There is no checkpoint in {empty}.\n"
    assert "There is no checkpoint" in shell("timeline", empty, "-o", "t.png", code=2)
    for file in [run / "ckpt-2.index", *run.glob("ckpt-2.data-*")]:
        file.rename(empty / file.name)
    assert "records phases" in shell("timeline", empty, code=2)


def test_without_matplotlib(run, tmp_path):
    """The numbers need no library, and the picture says which it needs."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from distckpt.cli import main\n"
        f"main(['timeline', {str(run)!r}, *sys.argv[1:]])"
    )

    def without(*arguments):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert without("--json").returncode == 0
    done = without("-o", tmp_path / "t.png")
    assert done.returncode == 2
    assert "pip install 'distckpt[timeline]'" in done.stderr
    assert not pathlib.Path(tmp_path / "t.png").exists()
