from __future__ import annotations

import pytest

from distckpt.core.protocol.messages import Report, WrittenFile
from distckpt.errors import SaveFailedError
from distckpt.saving.manifest_builder import extra_files

STEM = "shard-00000-of-00001"


def report(*extras):
    files = tuple(WrittenFile(STEM + extra, 7) for extra in extras)
    return Report(0, "host", 1, 0.0, (), (), (), files)


def test_what_a_saver_wrote_is_named_after_the_checkpoint():
    (record,) = extra_files("ckpt-1", [report("-My.Saver.txt")])
    assert (record.name, record.size, record.worker) == ("ckpt-1-My.Saver.txt", 7, 0)


def test_a_saver_must_not_name_its_files_like_another_checkpoint():
    with pytest.raises(SaveFailedError, match=r"'ckpt-1-2.index'.* not name its files like"):
        extra_files("ckpt-1", [report("-2.index")])
