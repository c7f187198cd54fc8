"""``distckpt doctor --workers N``: real processes that meet in a directory, or do not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import google_crc32c
import pytest

import distckpt
from distckpt.doctor.multi_process_check import compare
from distckpt.errors import DeadlineExceededError
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage
from distckpt.testing.threads import run_in_threads

from ..kit.eventually import eventually
from .storages import Careless

ROOT = str(Path(distckpt.__file__).parents[1])
TOGETHER = ["workers", "shared", "clocks", "exclusive creation by all", "rename by another"]


def start(directory, *arguments, path=ROOT):
    command = [sys.executable, "-m", "distckpt", "doctor", str(directory), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (process.returncode, out, err)
    assert "Traceback" not in err
    return out


def checks(text, mark="ok  "):
    return [line[5:].partition(":")[0] for line in text.splitlines() if line.startswith(mark)]


def test_three_meet_and_leave_nothing(tmp_path):
    processes = [start(tmp_path / "run", "--workers", 3) for _ in range(3)]
    pids = sorted(process.pid for process in processes)
    for text in map(end, processes):
        assert checks(text)[-5:] == TOGETHER
        (line,) = (line for line in text.splitlines() if "workers:" in line)
        assert sorted(map(int, re.findall(r"pid (\d+)", line))) == pids
    assert os.listdir(tmp_path / "run") == []


def test_a_second_round_right_after_the_first_is_not_taken_for_it(tmp_path):
    """Each of the two goes into the second round as soon as it is through with the first."""
    program = f"""
import subprocess, sys
for _ in range(3):
    command = [sys.executable, "-m", "distckpt", "doctor", {str(tmp_path)!r}, "--workers", "2"]
    subprocess.run(command, check=True)
"""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    command = [sys.executable, "-c", program]
    both = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        assert checks(end(process)).count("rename by another") == 3
    assert os.listdir(tmp_path) == []


def test_who_never_comes_is_missed(tmp_path):
    processes = [start(tmp_path, "--workers", 3, "--timeout", 3) for _ in range(2)]
    for process in processes:
        text = end(process, code=69)
        assert "FAIL workers: 2 of 3 have come within 3 s" in text
        assert all(f"pid {other.pid}" in text for other in processes)
        assert "1 missing. Have all been started" in text
    assert os.listdir(tmp_path) == []


def test_a_directory_of_each_one_s_own(tmp_path):
    processes = [
        start(tmp_path / name, "--workers", 2, "--timeout", 2) for name in ("here", "there")
    ]
    for process in processes:
        text = end(process, code=69)
        assert "1 of 2 have come" in text
        assert "not a local folder of each host" in text


def test_what_a_killed_one_has_left_is_not_believed(tmp_path):
    """A worker that is killed while it waits leaves its file; the next round must ignore it."""
    killed = start(tmp_path, "--workers", 2)
    folder = tmp_path / ".distckpt-doctor-of-2"
    eventually(lambda: folder.exists() and list(folder.glob("*.guest")), patience=60.0)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    text = end(start(tmp_path, "--workers", 2, "--timeout", 2), code=69)
    assert f"{os.uname().nodename} (pid {killed.pid}) left a file, but does not answer" in text
    for process in [start(tmp_path, "--workers", 2) for _ in range(2)]:
        text = end(process)
        assert f"pid {killed.pid})" not in text
        assert checks(text)[-5:] == TOGETHER
    assert len(list(folder.iterdir())) == 1
    done = subprocess.run(
        [sys.executable, "-m", "distckpt", "gc", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
    )
    assert "an unfinished test of `distckpt doctor`" in done.stdout, done.stderr
    assert not folder.exists()


def test_one_that_is_killed_in_the_middle_is_named(tmp_path):
    """It has come, and says nothing more: its part is played by a file that never changes."""
    other = start(tmp_path, "--workers", 2, "--timeout", 4)
    folder = tmp_path / ".distckpt-doctor-of-2"
    eventually(lambda: folder.exists() and list(folder.glob("*.guest")), patience=60.0)
    (file,) = folder.glob("*.guest")
    body = {"host": "elsewhere", "pid": 7, "seen": [file.stem, "ab"], "said": {}}
    text = json.dumps(body).encode()
    content = text + b"\n%08x" % google_crc32c.value(text)
    LocalStorage().write(str(folder / "ab.guest"), content, durable=False)
    said = end(other, code=69)
    assert "no answer from elsewhere (pid 7) within 4 s" in said


def test_more_than_expected(tmp_path):
    processes = [start(tmp_path, "--workers", 2, "--timeout", 3) for _ in range(3)]
    codes = []
    for process in processes:
        process.communicate(timeout=300)
        codes.append(process.returncode)
    assert set(codes) <= {0, 69, 78}
    assert any(codes), "three cannot meet two by two"


@pytest.mark.parametrize("content", [b"", b"x", b"{}\n00000000", b"[]\n629e1ae0", bytes(100)])
def test_files_that_nobody_can_understand_are_nobody(tmp_path, content):
    folder = tmp_path / ".distckpt-doctor-of-1"
    folder.mkdir()
    (folder / "zz.guest").write_bytes(content)
    text = end(start(tmp_path, "--workers", 1))
    assert checks(text)[-5:] == TOGETHER
    assert [path.name for path in folder.iterdir()] == ["zz.guest"]


def test_clocks_that_differ_are_found(tmp_path):
    clock = tmp_path / "clock"
    clock.mkdir()
    code = "import time\nright = time.time\ntime.time = lambda: right() + 30.0\n"
    (clock / "sitecustomize.py").write_text(code)
    right = start(tmp_path / "run", "--workers", 2)
    wrong = start(tmp_path / "run", "--workers", 2, path=os.pathsep.join([ROOT, str(clock)]))
    host = os.uname().nodename
    for process, other, where in ((right, wrong, "ahead of"), (wrong, right, "behind")):
        text = end(process)
        (line,) = (line for line in text.splitlines() if "clocks:" in line)
        assert line.startswith(f"WARN clocks: that of {host} (pid {other.pid}) is ")
        seconds = float(re.search(r"is ([0-9.]+) s", line)[1])
        assert 25 < seconds <= 30
        assert f"s {where} this one's" in line


# --- Storages that are not as they should be, each process a thread ------------------------------


def play(storages, directory, seconds=20.0):
    """Lets one worker for each storage meet; returns the findings of each."""
    found = [[] for _ in storages]

    def run(number):
        try:
            for finding in compare(storages[number], directory, len(storages), seconds):
                found[number].append(finding)
        except DeadlineExceededError as error:
            found[number].append(error)

    run_in_threads(run, range(len(storages)))
    return found


def test_tensorflow_s_file_systems_serve_for_a_meeting_too():
    GFileStorage().make_directory("ram://meeting")
    for findings in play([GFileStorage(), GFileStorage()], "ram://meeting"):
        assert [(f.check, f.good) for f in findings] == [(check, True) for check in TOGETHER]
    assert GFileStorage().list("ram://meeting") == []


def test_a_file_that_two_create_is_found(tmp_path):
    for findings in play([Careless(), Careless()], str(tmp_path)):
        (bad,) = (finding for finding in findings if not finding.good)
        assert bad.check == "exclusive creation by all"
        assert "was created by 2 of them" in bad.text
    assert os.listdir(tmp_path) == []


class Late(LocalStorage):
    """A cache that still shows the old content."""

    def read(self, path, *args):
        return b"old" if path.endswith(".target") else super().read(path, *args)


def test_a_rename_that_one_does_not_see_is_found_by_all(tmp_path):
    ours, theirs = play([LocalStorage(), Late()], str(tmp_path))
    for findings in (ours, theirs):
        (bad,) = (finding for finding in findings if not finding.good)
        assert bad.check == "rename by another"
    assert "(pid" in next(f.text for f in ours if not f.good)
    assert "this one did not see it" in next(f.text for f in theirs if not f.good)


class Blind(LocalStorage):
    """Lists only the files that it has written itself."""

    def __init__(self):
        self.mine = set()

    def write(self, path, data, *, durable):
        self.mine.add(os.path.basename(path))
        super().write(path, data, durable=durable)

    def list(self, directory):
        return [name for name in super().list(directory) if name in self.mine]


def test_who_does_not_see_the_others_is_told_from_who_never_came(tmp_path):
    (sees,), (blind,) = play([LocalStorage(), Blind()], str(tmp_path), seconds=2.0)
    assert "left a file, but does not answer" in str(sees)
    assert "it does not see the files written here" in str(sees)
    assert "left a file, but does not answer" not in str(blind)


class Keeping(LocalStorage):
    def remove(self, path):
        if path.endswith(".guest"):
            raise OSError(1, "Operation not permitted", path)
        super().remove(path)


def test_what_cannot_be_removed_again_is_said(tmp_path):
    (findings,) = play([Keeping()], str(tmp_path))
    assert findings[-1].check == "clean-up"
    assert "Operation not permitted" in findings[-1].text
