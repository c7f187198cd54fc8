"""What a failure in the middle of a write, or a killed process, leaves of local files."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from distckpt.storage import local, temporary

_CREATE_IN_TURN = """
import sys
from distckpt.storage.local import LocalStorage
storage = LocalStorage()
root, who, attempts = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(attempts):
    try:
        storage.create(f"{root}/term-{attempt}", who.encode(), durable=False)
        print(attempt)
    except FileExistsError:
        pass
"""

_WRITE_FOREVER = """
import sys
from distckpt.storage.local import LocalStorage
storage = LocalStorage()
contents = [bytes([65 + n]) * 400_000 for n in range(4)]
print("ready", flush=True)
while True:
    for content in contents:
        storage.write(sys.argv[1], content, durable=True)
"""

_WRITE_TOO_MUCH = """
import resource, signal, sys
from distckpt.storage.local import LocalStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    getattr(LocalStorage(), sys.argv[1])(sys.argv[2], b"x" * 300_000, durable=True)
except OSError as error:
    print(error.errno)
"""


def test_a_directory_that_cannot_be_flushed_does_not_fail_the_write(storage, monkeypatch, tmp_path):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not on this file system")
        real(descriptor)

    monkeypatch.setattr(local.os, "fsync", fsync)
    storage.write(f"{tmp_path}/a", b"x", durable=True)
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.fixture
def flushed(monkeypatch):
    """The inodes flushed so far, in order, with the names that a directory had at the time."""
    calls = []
    real = os.fsync

    def fsync(descriptor):
        status = os.fstat(descriptor)
        names = sorted(os.listdir(descriptor)) if stat.S_ISDIR(status.st_mode) else None
        calls.append((status.st_ino, names))
        real(descriptor)

    monkeypatch.setattr(local.os, "fsync", fsync)
    return calls


@pytest.mark.posix
@pytest.mark.parametrize("operation", ["write", "create"])
def test_a_durable_file_is_flushed_before_its_name_and_its_name_after(
    storage, tmp_path, flushed, operation
):
    getattr(storage, operation)(f"{tmp_path}/a", b"x", durable=True)
    inode = (tmp_path / "a").stat().st_ino
    assert flushed == [(inode, None), (tmp_path.stat().st_ino, ["a"])]


@pytest.mark.parametrize("operation", ["write", "create"])
def test_nothing_is_flushed_unless_asked(storage, tmp_path, flushed, operation):
    getattr(storage, operation)(f"{tmp_path}/a", b"x", durable=False)
    assert flushed == []


@pytest.mark.posix
def test_flush_reaches_a_file_that_may_only_be_read(storage, tmp_path, flushed):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0o444)
    storage.flush(f"{tmp_path}/a")
    storage.flush_directory(str(tmp_path))
    assert [inode for inode, _ in flushed] == [
        (tmp_path / "a").stat().st_ino,
        tmp_path.stat().st_ino,
    ]


@pytest.mark.parametrize("operation", ["write", "create"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
def test_a_failed_flush_leaves_the_old_state_and_no_litter(
    storage, tmp_path, monkeypatch, operation, error
):
    (tmp_path / "old").write_bytes(b"old")

    def fail(descriptor):
        raise error

    monkeypatch.setattr(local.os, "fsync", fail)
    path = f"{tmp_path}/{'old' if operation == 'write' else 'new'}"
    with pytest.raises(type(error)):
        getattr(storage, operation)(path, b"new", durable=True)
    assert storage.list(str(tmp_path)) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("operation", ["write", "create"])
def test_a_write_cut_off_in_the_middle_leaves_the_old_state_and_no_litter(tmp_path, operation):
    (tmp_path / "old").write_bytes(b"old")
    path = tmp_path / ("old" if operation == "write" else "new")
    command = [sys.executable, "-c", _WRITE_TOO_MUCH, operation, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == [str(errno.EFBIG)], done.stderr
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_name_taken_without_links_is_given_back_when_filling_it_fails(
    storage, tmp_path, monkeypatch
):
    def no_links(source, target):
        raise OSError(errno.ENOTSUP, "no hard links here")

    def no_replace(source, target):
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(local.os, "link", no_links)
    monkeypatch.setattr(local.os, "replace", no_replace)
    with pytest.raises(OSError, match="dying"):
        storage.create(f"{tmp_path}/a", b"x", durable=False)
    assert storage.list(str(tmp_path)) == []


@pytest.mark.posix
def test_an_error_of_link_other_than_lack_of_support_is_raised(storage, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(local.os, "link", fail)
    with pytest.raises(OSError, match="dying"):
        storage.create(f"{tmp_path}/a", b"x", durable=False)
    assert storage.list(str(tmp_path)) == []


def test_a_link_whose_answer_got_lost_counts_as_made(storage, tmp_path, monkeypatch):
    real = os.link

    def link_twice(source, target):
        real(source, target)
        real(source, target)  # as NFS does when it repeats a request

    monkeypatch.setattr(local.os, "link", link_twice)
    storage.create(f"{tmp_path}/a", b"mine", durable=False)
    assert storage.list(str(tmp_path)) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"mine"


def _start(program, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_processes_that_create_the_same_files_one_wins_each(tmp_path):
    attempts = 200
    processes = [_start(_CREATE_IN_TURN, tmp_path, who, attempts) for who in range(3)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(int(n) for numbers in won for n in numbers) == list(range(attempts))
    for who, numbers in enumerate(won):
        for number in numbers:
            assert (tmp_path / f"term-{number}").read_bytes() == b"%d" % who


def test_a_killed_writer_leaves_a_whole_file_and_only_recognisable_litter(storage, tmp_path):
    path = f"{tmp_path}/a"
    storage.write(path, b"@" * 400_000, durable=False)
    for round_number in range(6):
        process = _start(_WRITE_FOREVER, path)
        timer = threading.Timer(0.02 + 0.013 * round_number, process.send_signal, [signal.SIGKILL])
        timer.start()
        process.communicate(timeout=300)
        timer.join()
        content = storage.read(path)
        assert len(content) == 400_000
        assert len(set(content)) == 1
    others = [name for name in storage.list(str(tmp_path)) if name != "a"]
    assert all(temporary.is_temporary(name) for name in others)
