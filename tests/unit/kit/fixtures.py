from __future__ import annotations

import pathlib
import tempfile

import pytest

from distckpt.restoring import restore_session
from distckpt.saving import shard_writer
from distckpt.storage import retrying_reader


@pytest.fixture
def folder(tmp_path):
    """A folder in memory, where there is one: some tests save thousands of times."""
    memory = pathlib.Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield pathlib.Path(path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody waits for NFS to show a file here."""
    monkeypatch.setattr(shard_writer, "PROBE_PATIENCE", 0.1)
    monkeypatch.setattr(restore_session, "PATIENCE", 0.1)
    monkeypatch.setattr(retrying_reader, "_PAUSE", 0.01)
    monkeypatch.setattr(retrying_reader, "PATIENCE", 0.05)
