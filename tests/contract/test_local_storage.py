"""`LocalStorage`: the contract of all storages, and its own errors and rights."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distckpt.storage import local
from distckpt.storage.local import LocalStorage
from distckpt.testing.storage_contract import StorageContract


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


@pytest.mark.posix
@pytest.mark.parametrize("size", [None, 10])
def test_what_is_no_file_is_not_read(storage, tmp_path, size):
    """Reading a pipe would wait forever, reading /dev/zero would take all memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match=f"neither a file nor a directory.*{name}"):
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
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, timeout=300, check=False)
    assert done.returncode == 0
