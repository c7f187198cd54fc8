"""``distckpt doctor``, as people run it, and on storages that break a promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distckpt
from distckpt.doctor.single_process_check import examine
from distckpt.inspection import space_needed
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage

from .storages import Careless, Forgetful, KeepsTheOld, ReadOnly, Unflushable


def doctor(*arguments, ahead=0.0, folder=None):
    environment = {**os.environ, "PYTHONPATH": str(Path(distckpt.__file__).parents[1])}
    if ahead:
        environment["PYTHONPATH"] += os.pathsep + str(wrong_clock(folder, ahead))
    return subprocess.run(
        [sys.executable, "-m", "distckpt", "doctor", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def wrong_clock(folder, ahead):
    """Makes a folder that, on the module path, puts the clock of a Python process forward."""
    wrong = folder / f"clock {ahead}"
    wrong.mkdir()
    code = f"import time\nright = time.time\ntime.time = lambda: right() + {ahead}\n"
    (wrong / "sitecustomize.py").write_text(code)
    return wrong


def seconds(done, pattern):
    """Returns the seconds that the doctor reports; a slow file system makes them fewer."""
    found = re.search(pattern, done.stdout)
    assert found, done.stdout
    return float(found[1])


CHECKS = ["directory", "write and read", "exclusive creation", "rename", "flush", "speed", "clock"]


def test_a_good_directory_is_left_as_it_was(tmp_path):
    (tmp_path / "mine").write_text("x")
    done = doctor(tmp_path, "--free", "1K")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"ok   {check}" for check in [*CHECKS, "free space"]
    ]
    assert os.listdir(tmp_path) == ["mine"]


def test_a_directory_that_is_not_there_is_made(tmp_path):
    done = doctor(tmp_path / "a" / "b")
    assert done.returncode == 0
    assert "has been made" in done.stdout
    assert os.listdir(tmp_path / "a" / "b") == []


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    done = doctor(tmp_path / "file")
    assert done.returncode == 78
    assert "FAIL directory:" in done.stdout
    assert "is a file. Move it away" in done.stdout
    assert "clean-up" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_is_no_directory(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    done = doctor(tmp_path / "link" / "run")
    assert done.returncode == 78
    (line,) = done.stdout.splitlines()
    assert f"FAIL directory: {tmp_path}/link is a symbolic link" in line


def test_too_little_space(tmp_path):
    done = doctor(tmp_path, "--free", "900T")
    assert done.returncode == 78
    assert "900 TiB are needed" in done.stdout


@pytest.mark.parametrize("size", ["much", "-1", "1X", ""])
def test_a_size_that_is_none(tmp_path, size):
    done = doctor(tmp_path, "--free", size)
    assert done.returncode == 2
    assert "is not a size such as 20GiB" in done.stderr


def test_an_address_that_is_refused():
    assert doctor("file:///tmp/x").returncode == 2


def test_tensorflow_s_file_systems_are_examined_too():
    findings = list(examine(GFileStorage(), "ram://doctor"))
    assert all(finding.good for finding in findings), findings
    assert [finding.check for finding in findings] == CHECKS


def test_the_room_that_the_checkpoints_of_the_job_take(run):
    """Its three are kept, and one more is written."""
    needs = space_needed.look(LocalStorage(), str(run))
    sizes = [os.path.getsize(path) for path in run.glob("ckpt-5.data-*")]
    assert (needs.kept, needs.unlimited) == (4, False)  # three, and the best by loss
    assert needs.newest >= sum(sizes) > 0
    done = doctor(run)
    assert "; 4 checkpoints like the newest (78." in done.stdout, done.stdout
    done = doctor(run, "--keep", 10**12)
    assert done.returncode == 78
    assert "are needed. Free space, enlarge the volume, or keep fewer." in done.stdout


def test_nothing_is_known_of_the_room_of_tensorflow_s_file_systems():
    assert GFileStorage().free("ram://doctor") is None


def test_a_host_whose_clock_is_wrong_is_told(tmp_path):
    done = doctor(tmp_path, ahead=5.0, folder=tmp_path)
    assert done.returncode == 0
    assert 4.0 < seconds(done, r"WARN clock: (.*) s ahead of that of the file system") <= 5.0
    done = doctor(tmp_path, ahead=-100.0, folder=tmp_path)
    assert done.returncode == 78
    assert 99.0 < seconds(done, r"FAIL clock: (.*) s behind that of the file system") <= 100.0


class Keeping(LocalStorage):
    def remove_tree(self, path):
        raise OSError(1, "Operation not permitted", path)


def test_what_cannot_be_removed_again_is_said(tmp_path):
    *before, last = examine(Keeping(), str(tmp_path))
    assert [finding.check for finding in before] == CHECKS
    assert (last.check, last.good) == ("clean-up", False)
    assert "Operation not permitted" in last.text
    assert "`distckpt gc`" in last.text


class Small(LocalStorage):
    def free(self, directory):
        return 100 * 2**20


def test_a_small_volume_is_not_filled_to_see_how_fast_it_is(tmp_path):
    found = {finding.check: finding for finding in examine(Small(), str(tmp_path))}
    assert found["speed"].good
    assert "only 100 MiB are free" in found["speed"].text


@pytest.mark.parametrize(
    ("storage", "check", "text"),
    [
        (ReadOnly(), "write and read", "Read-only file system"),
        (Forgetful(), "write and read", "does not have the written content"),
        (Careless(), "exclusive creation", "was created twice"),
        (KeepsTheOld(), "rename", "which has not replaced it"),
        (Unflushable(), "flush", "durable=False"),
    ],
)
def test_what_a_storage_lacks_is_named_and_nothing_stays(tmp_path, storage, check, text):
    *before, last = examine(storage, str(tmp_path))
    assert all(finding.good for finding in before)
    assert (last.check, last.good) == (check, False)
    assert text in last.text
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "what"), [("ckpt-5", "is a checkpoint"), ("ckpt-5.index", "is a file of ckpt-5")]
)
def test_a_checkpoint_is_refused_and_no_folder_is_made(shell, run, name, what):
    before = sorted(os.listdir(run))
    text = shell("doctor", run / name, code=2)
    assert text == f"Error: {run / name} {what}. This command takes the directory: {run}\n"
    assert sorted(os.listdir(run)) == before
