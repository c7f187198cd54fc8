from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distckpt.roles import host
from distckpt.storage import local, temporary
from distckpt.storage.local import LocalStorage
from distckpt.testing.storage_contract import StorageContract

_CREATE_IN_TURN = """
import sys
from distckpt.storage.local import LocalStorage
storage = LocalStorage()
root, who, attempts = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for attempt in range(attempts):
    try:
        storage.create(f"{root}/epoch-{attempt}", who.encode(), durable=False)
        print(attempt)
    except FileExistsError:
        pass
"""

_WRITE_FOR_EVER = """
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


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self):
        return LocalStorage()

    @pytest.fixture
    def root(self, tmp_path):
        return str(tmp_path)


class TestLocalStorageWithoutHardLinks(StorageContract):
    @pytest.fixture(params=[errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
    def storage(self, request, monkeypatch):
        def refuse(source, target):
            raise OSError(request.param, os.strerror(request.param), source)

        monkeypatch.setattr(local.os, "link", refuse)
        return LocalStorage()

    @pytest.fixture
    def root(self, tmp_path):
        return str(tmp_path)


@pytest.fixture
def storage():
    return LocalStorage()


# --- Errors and rights ------------------------------------------------------------------------


def test_a_write_into_a_missing_directory_is_an_error(storage, tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.write(f"{tmp_path}/absent/a", b"x", durable=False)
    with pytest.raises(FileNotFoundError):
        storage.create(f"{tmp_path}/absent/a", b"x", durable=False)


def test_a_file_in_the_place_of_a_parent_is_an_error(storage, tmp_path):
    (tmp_path / "a").write_bytes(b"kept")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        storage.make_directory(f"{tmp_path}/a/b")
    with pytest.raises(NotADirectoryError):
        storage.write(f"{tmp_path}/a/b", b"x", durable=False)
    storage.remove(f"{tmp_path}/a/b")
    assert (tmp_path / "a").read_bytes() == b"kept"


@pytest.mark.posix
def test_flushing_a_file_as_a_directory_is_an_error(storage, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(NotADirectoryError):
        storage.flush_directory(f"{tmp_path}/a")


def test_a_directory_that_cannot_be_flushed_does_not_fail_the_write(storage, monkeypatch, tmp_path):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not on this file system")
        real(descriptor)

    monkeypatch.setattr(local.os, "fsync", fsync)
    storage.write(f"{tmp_path}/a", b"x", durable=True)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_trouble_in_looking_is_not_taken_for_absence(storage, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        storage.exists(f"{tmp_path}/loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_directory_without_rights_is_a_permission_error(storage, tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    try:
        for operation in (storage.exists, storage.read, storage.size):
            with pytest.raises(PermissionError):
                operation(f"{tmp_path}/closed/a")
        with pytest.raises(PermissionError):
            storage.write(f"{tmp_path}/closed/a", b"x", durable=False)
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_get_the_rights_that_the_umask_gives(storage, tmp_path, umask):
    before = os.umask(umask)
    try:
        storage.write(f"{tmp_path}/a", b"x", durable=False)
        storage.create(f"{tmp_path}/b", b"x", durable=False)
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_a_path_in_the_working_directory_needs_no_slash(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage.write("a", b"1", durable=True)
    storage.create("b", b"2", durable=True)
    assert storage.list(".") == ["a", "b"]


# --- Durability -------------------------------------------------------------------------------


@pytest.fixture
def flushed(monkeypatch):
    """The inodes flushed so far, in order, with the names their directory held at the time."""
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


# --- Failures in the middle -------------------------------------------------------------------


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
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


# --- Other processes --------------------------------------------------------------------------


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
    won = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(int(n) for numbers in won for n in numbers) == list(range(attempts))
    for who, numbers in enumerate(won):
        for number in numbers:
            assert (tmp_path / f"epoch-{number}").read_bytes() == b"%d" % who


def test_a_killed_writer_leaves_a_whole_file_and_only_recognisable_litter(tmp_path):
    storage = LocalStorage()
    path = f"{tmp_path}/a"
    storage.write(path, b"@" * 400_000, durable=False)
    for round_number in range(6):
        process = _start(_WRITE_FOR_EVER, path)
        timer = threading.Timer(0.02 + 0.013 * round_number, process.send_signal, [signal.SIGKILL])
        timer.start()
        process.communicate(timeout=60)
        timer.join()
        content = storage.read(path)
        assert len(content) == 400_000
        assert len(set(content)) == 1
    others = [name for name in storage.list(str(tmp_path)) if name != "a"]
    assert all(temporary.is_temporary(name) for name in others)


# --- Links ------------------------------------------------------------------------------------


@pytest.fixture
def treasure(tmp_path):
    """A directory outside of the tree under test, with a file that must survive."""
    (tmp_path / "treasure").mkdir()
    (tmp_path / "treasure" / "file").write_bytes(b"precious")
    (tmp_path / "tree").mkdir()
    return tmp_path / "treasure"


def test_a_dangling_link_does_not_exist(storage, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert not storage.exists(f"{tmp_path}/link")


def test_remove_takes_the_link_itself(storage, tmp_path, treasure):
    (tmp_path / "link").symlink_to(treasure / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    storage.remove(f"{tmp_path}/link")
    storage.remove(f"{tmp_path}/dangling")
    assert storage.list(str(tmp_path)) == ["treasure", "tree"]
    assert (treasure / "file").read_bytes() == b"precious"


def test_remove_tree_follows_no_link_inside(storage, tmp_path, treasure):
    (tmp_path / "tree" / "folder").symlink_to(treasure, target_is_directory=True)
    (tmp_path / "tree" / "file").symlink_to(treasure / "file")
    storage.remove_tree(f"{tmp_path}/tree")
    assert not (tmp_path / "tree").exists()
    assert (treasure / "file").read_bytes() == b"precious"


def test_remove_tree_of_a_link_takes_only_the_link(storage, tmp_path, treasure):
    (tmp_path / "link").symlink_to(treasure, target_is_directory=True)
    storage.remove_tree(f"{tmp_path}/link")
    assert not os.path.lexists(tmp_path / "link")
    assert (treasure / "file").read_bytes() == b"precious"


def test_a_write_replaces_a_link_and_leaves_its_target(storage, tmp_path, treasure):
    (tmp_path / "link").symlink_to(treasure / "file")
    storage.write(f"{tmp_path}/link", b"new", durable=False)
    assert not (tmp_path / "link").is_symlink()
    assert (treasure / "file").read_bytes() == b"precious"


def test_create_does_not_write_through_a_dangling_link(storage, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        storage.create(f"{tmp_path}/link", b"x", durable=False)
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_is_told_from_what_it_leads_to(storage, tmp_path, treasure):
    (tmp_path / "link").symlink_to(treasure, target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    assert storage.is_link(f"{tmp_path}/link")
    assert storage.is_link(f"{tmp_path}/dangling")
    for name in ("treasure", "treasure/file", "absent"):
        assert not storage.is_link(f"{tmp_path}/{name}")


# --- What is no file


@pytest.mark.posix
@pytest.mark.timeout(20)
@pytest.mark.parametrize("size", [None, 10])
def test_what_is_no_file_is_not_read(storage, tmp_path, size):
    """Reading a pipe would wait for ever, reading /dev/zero would take all memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match=f"neither file nor directory.*{name}"):
            storage.read(f"{tmp_path}/{name}", 0, size)


def test_a_tree_that_two_remove_at_once_is_gone(storage, tmp_path):
    failures = []

    def remove():
        try:
            storage.remove_tree(f"{tmp_path}/tree")
        except OSError as error:
            failures.append(error)

    for _ in range(10):
        for number in range(60):
            folder = tmp_path / "tree" / str(number % 6)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).write_bytes(b"x")
        threads = [threading.Thread(target=remove) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not (tmp_path / "tree").exists()
    assert failures == []


# --- Temporary names --------------------------------------------------------------------------


def test_temporary_names_are_in_the_same_directory_and_never_the_same():
    paths = {temporary.temporary_path("/some/where/file") for _ in range(1000)}
    assert len(paths) == 1000
    for path in paths:
        assert os.path.dirname(path) == "/some/where"
        assert temporary.is_temporary(os.path.basename(path))


def test_temporary_names_cannot_be_predicted(monkeypatch):
    """Not by who knows the time, the process, and the state of `random`: all come from here."""
    chance = []
    monkeypatch.setattr(secrets, "token_hex", lambda size: chance.append(size) or "c0ffee")
    assert "c0ffee" in temporary.temporary_path("/some/where/file")
    assert "c0ffee" in host.token(8)
    assert min(chance) >= 8  # bytes


@pytest.mark.parametrize("name", ["checkpoint", ".distckpt", "a.tmp", ".hidden", "ckpt-1.index"])
def test_other_names_do_not_look_temporary(name):
    assert not temporary.is_temporary(name)


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127], ids=["ascii", "two bytes each"])
def test_the_longest_file_names_can_be_written(storage, tmp_path, name):
    storage.write(f"{tmp_path}/{name}", b"1", durable=False)
    assert storage.read(f"{tmp_path}/{name}") == b"1"


def test_nothing_of_local_storage_imports_tensorflow():
    program = (
        "import sys, distckpt.storage.local, distckpt.storage.choose, distckpt.storage.gfile;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    repository = Path(local.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, timeout=60, check=False)
    assert done.returncode == 0
