"""Symbolic links on local storage: they redirect neither writes nor deletions."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def treasure(tmp_path):
    """A directory outside the tree under test, with a file that must survive."""
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
