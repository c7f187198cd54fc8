"""What stands in the way of a directory: the part of the path that is wrong, and what to do."""

from __future__ import annotations

import errno
import os

import pytest

from distckpt.coordination.shared_directory import SharedDirectory
from distckpt.errors import DirectoryError
from distckpt.storage.choose import storage_for
from distckpt.storage.local import LocalStorage
from distckpt.storage.obstacles import find
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails


@pytest.mark.parametrize("path", ["", "real", "real/a/b", "link", "link/a/b"])
def test_what_is_there_or_can_be_made_has_no_obstacle(tmp_path, path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert find(LocalStorage(), str(tmp_path / path)) is None


@pytest.mark.parametrize("below", ["", "/run", "/run/deeper"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("file", "is a file. Move it away"),
        ("to-file", "is a symbolic link to a file"),
        ("dangling", "is a symbolic link to a target that does not exist. Make, or mount"),
        ("to-dangling", "is a symbolic link to a target that does not exist"),
        ("loop", "is a symbolic link that leads back to itself"),
    ],
)
def test_the_part_of_the_path_that_is_wrong_is_named(tmp_path, name, text, below):
    (tmp_path / "file").write_text("")
    links = {"to-file": "file", "dangling": "nowhere/at/all", "to-dangling": "dangling"}
    for link, target in {**links, "loop": "loop"}.items():
        (tmp_path / link).symlink_to(target)
    assert find(LocalStorage(), f"{tmp_path}/{name}{below}").startswith(f"{tmp_path}/{name} {text}")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOTCONN, "does not answer"),
        (errno.ESTALE, "Was it unmounted, or is its server down?"),
        (errno.EACCES, "may not search the folder of"),
        (errno.ENAMETOOLONG, "Give another directory"),
    ],
)
def test_a_path_that_cannot_be_looked_at(tmp_path, number, text):
    storage = FaultyStorage(LocalStorage(), [Fault(fails(number), Where("is_directory"), times=99)])
    found = find(storage, str(tmp_path))
    assert text in found
    assert os.strerror(number) in found or number == errno.EACCES


def test_of_a_url_only_the_directory_itself_is_looked_at():
    assert find(storage_for("ram://obstacles/run"), "ram://obstacles/run") is None


def test_workers_that_meet_in_a_directory_are_told(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DirectoryError, match="link is a symbolic link to a target that does not"):
        SharedDirectory(tmp_path / "link", "run", 0, 1)
