from __future__ import annotations

import errno

import pytest

from distckpt.runtime import host
from distckpt.storage import retrying_reader
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import Fault, FaultyStorage, Where, fails


@pytest.fixture
def slept(monkeypatch):
    """What was slept, in seconds; it takes no time."""
    seconds = []
    monkeypatch.setattr(retrying_reader, "_PAUSE", 1.0)
    monkeypatch.setattr(retrying_reader, "PATIENCE", 10.0)
    monkeypatch.setattr(host, "sleep", seconds.append)
    return seconds


def reader(path, code, *, times):
    (path / "file").write_bytes(b"content")
    storage = FaultyStorage(LocalStorage())
    for kind in ("read", "size", "list"):
        storage.add(Fault(fails(code), Where(kind), "before", times=times))
    return retrying_reader.RetryingReader(storage)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_an_error_that_passes_is_not_heard_of(tmp_path, slept, code):
    patiently = reader(tmp_path, code, times=2)
    assert patiently.read(f"{tmp_path}/file", 2, 3) == b"nte"
    assert patiently.size(f"{tmp_path}/file") == 7
    assert patiently.list(str(tmp_path)) == ["file"]
    assert len(slept) == 6


def test_an_error_that_lasts_is_raised_and_nobody_waits_again(tmp_path, slept):
    patiently = reader(tmp_path, errno.EIO, times=10**6)
    for _ in range(3):
        with pytest.raises(OSError, match="file") as caught:
            patiently.read(f"{tmp_path}/file")
        assert caught.value.errno == errno.EIO
    assert sum(slept) == retrying_reader.PATIENCE


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EISDIR])
def test_an_answer_is_an_answer(tmp_path, slept, code):
    patiently = reader(tmp_path, code, times=1)
    with pytest.raises(OSError, match="file") as caught:
        patiently.read(f"{tmp_path}/file")
    assert caught.value.errno == code
    assert slept == []
