"""Saving by processes that meet in a shared directory instead of a TensorFlow cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from distckpt.core import manifest_json
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

from ..unit.kit.warm import WarmCluster

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(__file__).with_name("plain_processes.py"))


def run(tmp_path, workers):
    env = {"DIRECTORY": str(tmp_path / "run"), "MEETING": str(tmp_path / "meeting")}
    with WarmCluster([PROGRAM], workers=workers, env=env) as job:
        results = job.wait(120)
        outputs = [job.output(i) for i in range(workers)]
    assert [r.returncode for r in results] == [0] * workers, outputs
    return outputs


def test_plain_processes_share_the_writing_and_resume_on_another_number(tmp_path):
    directory = tmp_path / "run"
    for output in run(tmp_path, 3):
        assert "restored None 0" in output
        assert f"saved {directory}/ckpt-3" in output
    written = manifest_json.parse((directory / "ckpt-3.manifest.json").read_bytes())
    shares = [w.bytes for w in written.workers]
    assert len(shares) == 3
    assert max(shares) <= 1.10 * sum(shares) / 3
    for output in run(tmp_path, 2):
        assert f"restored {directory}/ckpt-3 3" in output
        assert f"saved {directory}/ckpt-6" in output
    Verifier(LocalStorage(), str(directory)).verify("ckpt-6")
    assert sorted(p.name for p in directory.glob("*.index")) == ["ckpt-5.index", "ckpt-6.index"]
