"""Names of temporary files."""

from __future__ import annotations

import os
import secrets

import pytest

from distckpt.runtime import host
from distckpt.storage import temporary


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
