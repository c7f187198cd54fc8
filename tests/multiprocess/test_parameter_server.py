"""ParameterServerStrategy: TensorFlow's saver writes, distckpt commits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tensorflow as tf

from distckpt.core import manifest_json
from distckpt.launcher.ports import pick_ports
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

from ..unit.kit import warm

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(__file__).with_name("parameter_server.py"))


def start(cluster, job, index, directory, log):
    """Starts one task of a cluster."""
    config = {"cluster": cluster, "task": {"type": job, "index": index}}
    env = {
        **os.environ,
        "TF_CONFIG": json.dumps(config),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GRPC_FAIL_FAST": "use_caller",
    }
    return warm.start([PROGRAM, directory], env, os.getcwd(), str(log), str(log))


def run(directory, logs):
    """Runs a job of five tasks; returns what its chief found."""
    ports = iter(pick_ports(5))
    cluster = {
        job: [f"127.0.0.1:{next(ports)}" for _ in range(count)]
        for job, count in (("chief", 1), ("worker", 2), ("ps", 2))
    }
    started = []
    try:
        for job, tasks in cluster.items():
            for index in range(len(tasks)):
                log = logs / f"{job}-{index}.log"
                started.append(start(cluster, job, index, directory, log))
        started[0].join(180)
    finally:
        for process in started:
            process.kill()
            process.join()
    output = (logs / "chief-0.log").read_text()
    assert "RESULT " in output, output[-3000:]
    return json.loads(output.split("RESULT ")[1].splitlines()[0])


def test_a_parameter_server_job_saves_commits_prunes_and_restores(tmp_path):
    directory = tmp_path / "run"
    result = run(directory, tmp_path)
    assert result["paths"] == [f"{directory}/ckpt-{i}" for i in (1, 2, 3, 3)]
    assert result["checkpoints"] == [f"{directory}/ckpt-2", f"{directory}/ckpt-3"]
    assert result["restored"] == f"{directory}/ckpt-3"
    assert result["equal"] is True
    assert result["step"] == 3
    assert len(result["devices"]) == 2  # the table is on both parameter servers

    assert sorted(p.name for p in directory.glob("*.index")) == ["ckpt-2.index", "ckpt-3.index"]
    written = manifest_json.parse((directory / "ckpt-3.manifest.json").read_bytes())
    assert len([f for f in written.files if f.size]) == 3  # each ps, and the coordinator
    for name in ("ckpt-2", "ckpt-3"):
        Verifier(LocalStorage(), str(directory)).verify(name)
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(directory)))
    assert float(reader.get_tensor("table/.ATTRIBUTES/VARIABLE_VALUE").sum()) == pytest.approx(
        result["sum"]
    )
    assert reader.get_tensor("note/.ATTRIBUTES/VARIABLE_VALUE") == b"a string on the coordinator"
    assert not [p for p in directory.iterdir() if "pending" in p.name]
