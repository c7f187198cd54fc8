from __future__ import annotations

import errno
import itertools

import pytest

from distckpt import errors
from distckpt.storage.choose import storage_for
from distckpt.storage.gfile import GFileStorage
from distckpt.storage.local import LocalStorage
from distckpt.testing.storage_contract import StorageContract

_numbers = itertools.count()


class TestGFileStorageInMemory(StorageContract):
    exclusive = False

    @pytest.fixture
    def storage(self):
        return GFileStorage()

    @pytest.fixture
    def root(self, storage):
        root = f"ram://contract-{next(_numbers)}"
        storage.make_directory(root)
        yield root
        storage.remove_tree(root)


class TestGFileStorageOnFiles(StorageContract):
    """TensorFlow's own POSIX file system reports its errors differently from ram://."""

    exclusive = False

    @pytest.fixture
    def storage(self):
        return GFileStorage()

    @pytest.fixture
    def root(self, tmp_path):
        return f"file://{tmp_path}"


@pytest.fixture
def storage():
    return GFileStorage()


def test_files_appear_in_directories_that_nobody_made(storage):
    storage.write("ram://contract-implicit/a/b", b"x", durable=True)
    assert storage.is_directory("ram://contract-implicit/a")
    assert storage.list("ram://contract-implicit/a") == ["b"]


def test_a_file_in_the_place_of_a_parent_is_an_error(storage, tmp_path):
    storage.write(f"file://{tmp_path}/a", b"kept", durable=False)
    with pytest.raises(NotADirectoryError):
        storage.make_directory(f"file://{tmp_path}/a/b")
    with pytest.raises(NotADirectoryError):
        storage.write(f"file://{tmp_path}/a/b", b"x", durable=False)
    assert storage.read(f"file://{tmp_path}/a") == b"kept"


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage, path: storage.exists(path),
        lambda storage, path: storage.list(path),
        lambda storage, path: storage.read(path),
        lambda storage, path: storage.write(path, b"x", durable=False),
        lambda storage, path: storage.create(path, b"x", durable=False),
        lambda storage, path: storage.make_directory(path),
    ],
    ids=["exists", "list", "read", "write", "create", "make_directory"],
)
def test_a_scheme_that_tensorflow_does_not_know_is_an_error_that_names_it(storage, operation):
    with pytest.raises(OSError, match="nosuchscheme") as caught:
        operation(storage, "nosuchscheme://bucket/a")
    assert caught.value.errno == errno.ENOTSUP


@pytest.mark.parametrize(
    ("kind", "expected", "number"),
    [
        ("PermissionDeniedError", PermissionError, errno.EACCES),
        ("UnauthenticatedError", PermissionError, errno.EACCES),
        ("ResourceExhaustedError", OSError, errno.ENOSPC),
        ("DeadlineExceededError", TimeoutError, errno.ETIMEDOUT),
        ("UnavailableError", OSError, errno.EIO),
        ("InternalError", OSError, errno.EIO),
    ],
)
def test_errors_that_no_file_system_here_can_raise_are_translated(
    storage, monkeypatch, kind, expected, number
):
    import tensorflow as tf

    def fail(path):
        raise getattr(tf.errors, kind)(None, None, "the text from below")

    monkeypatch.setattr(tf.io.gfile, "exists", fail)
    with pytest.raises(expected, match="the text from below") as caught:
        storage.exists("gs://bucket/a")
    assert caught.value.errno == number
    assert caught.value.filename == "gs://bucket/a"


def test_a_failed_write_leaves_the_old_file_and_no_litter(storage, monkeypatch):
    import tensorflow as tf

    root = "ram://contract-failed-write"
    storage.write(f"{root}/a", b"old", durable=True)

    def fail(source, target, overwrite=False):
        raise tf.errors.ResourceExhaustedError(None, None, "quota")

    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(OSError, match="quota") as caught:
        storage.write(f"{root}/a", b"new", durable=True)
    assert caught.value.errno == errno.ENOSPC
    assert storage.list(root) == ["a"]
    assert storage.read(f"{root}/a") == b"old"


class Interrupted(GFileStorage):
    """Somebody does something right after the first listing of a folder."""

    def __init__(self, folder, what):
        self._folder, self._what = folder, [what]

    def list(self, directory):
        names = super().list(directory)
        if directory == self._folder and self._what:
            self._what.pop()()
        return names


def test_a_directory_is_renamed_with_what_comes_meanwhile_and_without_what_goes(storage):
    root = "ram://contract-rename-busy"
    for name in ("a", "b", "c"):
        storage.write(f"{root}/old/{name}", b"x", durable=False)

    def somebody():
        storage.rename(f"{root}/old/b", f"{root}/b")
        storage.write(f"{root}/old/d", b"x", durable=False)

    Interrupted(f"{root}/old", somebody).rename(f"{root}/old", f"{root}/new")
    assert storage.list(root) == ["b", "new"]
    assert storage.list(f"{root}/new") == ["a", "c", "d"]


def test_who_finds_the_claim_of_another_creates_nothing(storage):
    root = "ram://contract-claims"
    for claim in (".term.0123456789abcdef.tmp", ".term-2.0123456789abcdef.tmp"):
        storage.write(f"{root}/{claim}", b"", durable=False)
    with pytest.raises(FileExistsError):
        storage.create(f"{root}/term", b"x", durable=False)
    assert not storage.exists(f"{root}/term")
    storage.remove(f"{root}/.term.0123456789abcdef.tmp")
    storage.create(f"{root}/term", b"x", durable=False)
    assert storage.list(root) == [".term-2.0123456789abcdef.tmp", "term"]


def test_a_claim_that_becomes_a_file_is_not_missed(storage):
    root = "ram://contract-race"
    storage.make_directory(root)
    other = Interrupted(root, lambda: storage.write(f"{root}/term", b"first", durable=False))
    with pytest.raises(FileExistsError):
        other.create(f"{root}/term", b"second", durable=False)
    assert storage.list(root) == ["term"]
    assert storage.read(f"{root}/term") == b"first"


@pytest.mark.parametrize("directory", ["gs://bucket/run", "ram://x", "hdfs://host:1/x"])
def test_an_address_with_a_scheme_is_served_by_tensorflow(directory):
    assert isinstance(storage_for(directory), GFileStorage)


@pytest.mark.parametrize("directory", ["/data/run", "run", "./a:b//c", "C:/data", ""])
def test_any_other_directory_is_served_by_the_operating_system(directory):
    assert isinstance(storage_for(directory), LocalStorage)


@pytest.mark.parametrize("address", ["file:///data/run", "FILE:///data/run"])
def test_a_file_address_is_refused_with_the_plain_path_to_use(address):
    with pytest.raises(errors.ConfigurationError, match='"/data/run"'):
        storage_for(address)
