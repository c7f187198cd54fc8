"""The listeners that are ready made, on the events of real managers."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request

import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

import distckpt
from distckpt.errors import ConfigurationError
from distckpt.listeners import JsonLines, Log, Prometheus, TensorBoard, dispatcher


@pytest.fixture
def job(tmp_path):
    """Saves twice, at steps 5 and 10, and restores."""

    def run(*listeners):
        step = tf.Variable(0, dtype=tf.int64)
        manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(step=step, weights=tf.Variable(tf.zeros(1000))),
            tmp_path / "run",
            1,
            step_counter=step,
            options=distckpt.ManagerOptions(listeners=listeners, durable=False),
        )
        for number in (1, 2):
            step.assign(5 * number)
            manager.save(metrics={"loss": 0.5})
        manager.restore_or_initialize()
        dispatcher.flush_all()
        return manager

    return run


SAVE = ["SaveStarted", "Captured", "ShardWritten", "Gathered", "Committed"]


def test_lines_of_json(job, tmp_path):
    job(JsonLines(tmp_path / "logs" / "worker-{worker}.jsonl"))
    lines = (tmp_path / "logs" / "worker-0.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    kinds = [event["event"] for event in found]
    assert [k for k in kinds[:6] if k in SAVE] == SAVE
    assert kinds.count("Committed") == 2
    assert kinds.count("Pruned") == 1
    assert kinds[-1] == "Restored"
    committed = next(event for event in found if event["event"] == "Committed")
    assert (committed["step"], committed["metrics"]) == (5, {"loss": 0.5})
    assert committed["directory"] == str(tmp_path / "run")


def test_lines_for_a_log(job, caplog):
    with caplog.at_level(logging.INFO, "distckpt.events"):
        job(Log())
    text = caplog.text
    assert "worker 0 of 1: ckpt-1: committed, " in text
    assert "deleted: ckpt-1" in text
    assert all(r.levelno == logging.INFO for r in caplog.records if r.name == "distckpt.events")


def test_scalars_for_tensorboard(job, tmp_path):
    job(TensorBoard(tmp_path / "board"))
    (file,) = (tmp_path / "board").rglob("events.out*")
    found = {}
    for record in tf.data.TFRecordDataset(str(file)):
        event = event_pb2.Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    assert "worker-0" in str(file)
    assert found["checkpoint/seconds_stopped"] == [5, 10]
    assert found["checkpoint/bytes_written"] == [5, 10]


def test_numbers_for_prometheus_by_http(job):
    listener = Prometheus(port=0)
    try:
        job(listener)
        url = f"http://127.0.0.1:{listener.port}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
    finally:
        listener.close()
    assert 'outcome="committed",worker="0"} 2.0' in text
    assert "distckpt_last_commit_step{" in text
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=1)


def test_numbers_for_prometheus_in_a_file(job, tmp_path):
    job(Prometheus(textfile=tmp_path / "metrics" / "distckpt-{worker}.prom"))
    text = (tmp_path / "metrics" / "distckpt-0.prom").read_text()
    assert "distckpt_pruned_checkpoints_total{" in text
    assert "distckpt_training_stopped_seconds_bucket{" in text


def test_a_failed_save_is_counted_and_warned_of(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    options = distckpt.ManagerOptions(
        listeners=[Log(), Prometheus(textfile=tmp_path / "x.prom"), JsonLines(tmp_path / "x.jsonl")]
    )
    manager = distckpt.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1.0)), tmp_path / "file" / "run", 1, options=options
    )
    with pytest.raises(ConfigurationError):
        manager.save()
    dispatcher.flush_all()
    assert 'outcome="failed",worker="0"} 1.0' in (tmp_path / "x.prom").read_text()
    assert '"event":"SaveFailed"' in (tmp_path / "x.jsonl").read_text()
    assert "not saved: DirectoryError" in caplog.text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: JsonLines("a-{host}.jsonl"), "other braces"),
        (lambda: Prometheus(), "either port or textfile"),
        (lambda: Prometheus(port=0, textfile="x.prom"), "either port or textfile"),
        (lambda: Prometheus(port=99_999), "cannot listen on 127.0.0.1:99999"),
        (lambda: distckpt.ManagerOptions(listeners=[3]), "listeners"),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ConfigurationError, match=text):
        make()


def test_a_port_that_is_taken():
    first = Prometheus(port=0)
    try:
        with pytest.raises(ConfigurationError, match="its own port"):
            Prometheus(port=first.port)
    finally:
        first.close()
