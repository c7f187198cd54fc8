"""Directories that cannot be used, and disks that fail: the errors, and what is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile

import pytest
import tensorflow as tf

from distckpt import errors
from distckpt.storage.local import LocalStorage

NOBODY = 65534


# --- What is no directory


def a_file(root):
    (root / "here").write_text("x")
    return root / "here"


def below_a_file(root):
    return a_file(root) / "run" / "deeper"


def a_dangling_link(root):
    (root / "here").symlink_to(root / "nowhere")
    return root / "here"


def below_a_dangling_link(root):
    return a_dangling_link(root) / "run"


def a_link_to_a_file(root):
    target = a_file(root).rename(root / "file")
    (root / "here").symlink_to(target)
    return root / "here"


def a_system_folder(root):
    return pathlib.Path("/proc/distckpt/run")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (a_file, "here is a file. Move it away"),
        (below_a_file, "here is a file. Move it away"),
        (a_link_to_a_file, "here is a symbolic link to a file. Move it away"),
        (a_dangling_link, "here is a symbolic link to a target that does not exist. Make"),
        (below_a_dangling_link, "here is a symbolic link to a target that does not exist."),
        (a_system_folder, "No such file or directory"),
    ],
)
def test_a_place_that_is_no_directory_is_named(make, tmp_path, checkpoint, place, text):
    directory = place(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    manager = make(checkpoint, directory)
    assert manager.latest_checkpoint is None
    assert manager.restore_or_initialize() is None
    with pytest.raises(errors.DirectoryError, match=str(directory)) as caught:
        manager.save()
    assert text in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_manager_serves_once_the_place_is_free(make, tmp_path, checkpoint):
    file = a_file(tmp_path)
    manager = make(checkpoint, file)
    with pytest.raises(errors.DirectoryError, match="is a file"):
        manager.save()
    file.unlink()
    assert manager.save() == f"{file}/ckpt-2"


def test_a_path_that_cannot_be_looked_at_is_named_at_once(make, tmp_path, checkpoint):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path / "loop", tmp_path / "loop" / "run"):
        with pytest.raises(errors.DirectoryError, match=r"cannot be read: .* back to itself"):
            make(checkpoint, place)
    with pytest.raises(errors.DirectoryError, match="cannot be read"):
        make(checkpoint, tmp_path / ("x" * 300))


def test_a_name_that_is_too_long_is_named(make, tmp_path, checkpoint):
    with pytest.raises(errors.ConfigurationError, match="it has 250 bytes, more than 150"):
        make(checkpoint, tmp_path, checkpoint_name="x" * 250)


def test_a_folder_in_the_place_of_a_manifest_is_named_and_the_rest_is_kept(
    make, tmp_path, checkpoint
):
    manager = make(checkpoint, tmp_path)
    assert manager.save() == f"{tmp_path}/ckpt-1"
    folder = tmp_path / "ckpt-2.manifest.json"
    folder.mkdir()
    (folder / "file").touch()
    with pytest.raises(errors.CommitUnknownError):
        manager.save()
    with pytest.raises(errors.DirectoryError, match=f"move {folder} away"):
        manager.save()
    folder.rename(tmp_path / "elsewhere")
    assert manager.save() == f"{tmp_path}/ckpt-4"
    assert manager.checkpoints == [f"{tmp_path}/ckpt-1", f"{tmp_path}/ckpt-4"]


def test_a_folder_in_the_place_of_tensorflows_file_costs_no_checkpoint(
    make, tmp_path, checkpoint, caplog
):
    (tmp_path / "checkpoint").mkdir()
    for number in (1, 2, 3):
        checkpoint.value.assign(number)
        assert make(checkpoint, tmp_path, 1).save(number) == f"{tmp_path}/ckpt-{number}"
    assert "Nothing is deleted" in caplog.text
    checkpoint.value.assign(0)
    manager = make(checkpoint, tmp_path, 1)
    assert manager.restore_or_initialize() == f"{tmp_path}/ckpt-3"
    assert checkpoint.value.numpy() == 3
    (tmp_path / "checkpoint").rmdir()
    manager.save(4)
    assert tf.train.latest_checkpoint(tmp_path) == f"{tmp_path}/ckpt-4"
    assert [p.name for p in tmp_path.glob("*.index")] == ["ckpt-4.index"]


# --- Rights


@contextlib.contextmanager
def ordinary_user():
    """Takes root's rights away for a while: no file is closed to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def ordinary_folder():
    """A folder of the ordinary user's, which pytest's own folders are closed to."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="distckpt-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def written(ordinary_folder, make, checkpoint):
    """A folder with one checkpoint."""
    with ordinary_user():
        make(checkpoint, ordinary_folder).save()
    return ordinary_folder


def test_a_directory_that_is_closed_to_writers_serves_readers(make, observer, written, checkpoint):
    before = observer.on_disk(written)
    checkpoint.value.assign(0)
    written.chmod(0o555)
    with ordinary_user():
        manager = make(checkpoint, written)
        assert manager.restore_or_initialize() == f"{written}/ckpt-1"
        assert checkpoint.value.numpy() == 1
        with pytest.raises(errors.DirectoryError, match="may not write"):
            manager.save()
    written.chmod(0o755)
    assert observer.on_disk(written) == before
    assert observer.leftovers(written) == []
    with ordinary_user():
        assert manager.save() == f"{written}/ckpt-3"


def test_an_empty_directory_that_is_closed_to_writers(make, ordinary_folder, checkpoint):
    ordinary_folder.chmod(0o555)
    with ordinary_user():
        manager = make(checkpoint, ordinary_folder / "new")
        assert manager.restore_or_initialize() is None
        with pytest.raises(errors.DirectoryError, match="may not write"):
            manager.save()
    assert list(ordinary_folder.iterdir()) == []


def test_a_directory_that_is_closed_to_readers(make, written, checkpoint):
    written.chmod(0o300)
    with ordinary_user(), pytest.raises(errors.DirectoryError, match="cannot be read"):
        make(checkpoint, written)


def test_a_checkpoint_that_is_closed_to_readers_is_passed_over(make, written, checkpoint, caplog):
    checkpoint.value.assign(2)
    with ordinary_user():
        make(checkpoint, written).save(2)
    (written / "ckpt-2.data-00000-of-00001").chmod(0)
    with ordinary_user():
        assert make(checkpoint, written).restore_or_initialize() == f"{written}/ckpt-1"
    assert checkpoint.value.numpy() == 1
    assert "ckpt-2 is not usable" in caplog.text


# --- Failures of the disk


class FailingStorage(LocalStorage):
    """Fails each operation on a name that ends so, with an error number."""

    def __init__(self, ending, number):
        self.ending, self.number = ending, number

    def rename(self, source, target):
        if self.ending and target.endswith(self.ending):
            raise OSError(self.number, os.strerror(self.number), target)
        super().rename(source, target)


@pytest.mark.parametrize("ending", [".data-00000-of-00001", ".index", ".manifest.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_leaves_the_last_one_and_nothing_else(
    make, observer, tmp_path, checkpoint, monkeypatch, ending, number
):
    storage = FailingStorage("", number)
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage
    )
    manager = make(checkpoint, tmp_path, 1)
    manager.save()
    before = observer.everything(manager)
    storage.ending = f"ckpt-2{ending}"
    checkpoint.value.assign(2)
    with pytest.raises(errors.SaveFailedError, match="save again"):
        manager.save()
    assert observer.everything(manager) == before
    assert observer.leftovers(tmp_path) == []
    storage.ending = ""
    assert manager.save() == f"{tmp_path}/ckpt-3"


def test_a_failure_in_the_middle_of_the_same_number_leaves_the_old_one(
    make, observer, tmp_path, checkpoint, monkeypatch
):
    storage = FailingStorage("", errno.EIO)
    monkeypatch.setattr(
        "distckpt.manager.checkpoint_manager.storage_for", lambda directory: storage
    )
    manager = make(checkpoint, tmp_path, 1)
    manager.save(1)
    before = observer.everything(manager)
    for ending in ("ckpt-1.data-00000-of-00002", "ckpt-1.index", "ckpt-1.manifest.json"):
        storage.ending = ending
        checkpoint.value.assign(5)
        with pytest.raises(errors.SaveFailedError):
            manager.save(1)
        storage.ending = ""
        assert observer.everything(manager) == before
    assert manager.save(1) == f"{tmp_path}/ckpt-1"
    assert observer.leftovers(tmp_path) == []
