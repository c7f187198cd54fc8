"""Names of temporary files."""

from __future__ import annotations

import os
import secrets

import pytest

from distckpt.errors import explain
from distckpt.runtime import host
from distckpt.storage import temporary
from distckpt.storage.local import LocalStorage


def test_temporary_names_are_in_the_same_directory_and_never_the_same():
    paths = {temporary.temporary_path("/some/where/file") for _ in range(1000)}
    assert len(paths) == 1000
    for path in paths:
        assert os.path.dirname(path) == "/some/where"
        assert temporary.is_temporary(os.path.basename(path))


def test_temporary_names_cannot_be_predicted(monkeypatch):
    """They do not follow from the time, the process, or the state of `random`."""
    chance = []
    monkeypatch.setattr(secrets, "token_hex", lambda size: chance.append(size) or "c0ffee")
    assert "c0ffee" in temporary.temporary_path("/some/where/file")
    assert "c0ffee" in host.token(8)
    assert min(chance) >= 8  # bytes


@pytest.mark.parametrize("name", ["checkpoint", ".distckpt", "a.tmp", ".hidden", "ckpt-1.index"])
def test_other_names_do_not_look_temporary(name):
    assert not temporary.is_temporary(name)


def test_errors_name_the_file_that_is_written_and_not_its_temporary_name(tmp_path):
    storage, nowhere = LocalStorage(), tmp_path / "nowhere"
    (tmp_path / "folder").mkdir()
    for write, path, named in (
        (storage.write, tmp_path / "folder", tmp_path / "folder"),
        (storage.write, nowhere / "file", nowhere / "file"),
        (storage.create, nowhere / "file", nowhere / "file"),
    ):
        with pytest.raises(OSError, match=named.name) as caught:
            write(str(path), b"x", durable=False)
        assert explain(caught.value).startswith(f"{named}: ")
        assert not isinstance(caught.value, FileExistsError)
    with pytest.raises(FileNotFoundError) as caught:
        storage.freshen(str(nowhere))
    assert explain(caught.value) == f"{nowhere}: No such file or directory"
    assert os.listdir(tmp_path) == ["folder"]
