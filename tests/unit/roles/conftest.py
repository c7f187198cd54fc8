from __future__ import annotations

import pytest

from distckpt.roles import restore, writer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody waits for NFS to show a file here."""
    monkeypatch.setattr(writer, "PROBE_PATIENCE", 0.1)
    monkeypatch.setattr(restore, "PATIENCE", 0.1)
