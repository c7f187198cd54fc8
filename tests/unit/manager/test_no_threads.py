"""Saves are made even if threads cannot be started, and the manager can still be used."""

from __future__ import annotations

import dataclasses

import pytest
import tensorflow as tf

from distckpt import events
from distckpt.core.protocol import share_parts

from ..kit.refusing import Refusing
from .conftest import ASYNC, FAST


@pytest.mark.parametrize("options", [FAST, ASYNC], ids=["blocking", "asynchronous"])
@pytest.mark.parametrize(
    ("number", "more"), [(0, True), (1, True), *((n, False) for n in range(7))]
)
def test_a_save_is_made_and_the_next_one_too(
    make, observer, tmp_path, monkeypatch, caplog, options, number, more
):
    monkeypatch.setattr(share_parts, "LEAST", 1)
    heard = []
    options = dataclasses.replace(options, listeners=[heard.append])
    variables = [tf.Variable(tf.fill([50, 50], float(n))) for n in range(8)]
    manager = make(tf.train.Checkpoint(variables=variables), tmp_path, 2, options=options)
    with monkeypatch.context() as limited:
        refusing = Refusing(limited, number, more=more)
        path = manager.save()
        manager.sync()
    assert manager.latest_checkpoint == path
    assert refusing.refused or number >= 4
    grounded = any("save() of" in name for name in refusing.refused)
    said = "save() of ckpt-1 is not done in the background: can't start new thread." in caplog.text
    assert said == grounded
    variables[3].assign(tf.zeros([50, 50]))
    again = manager.save()
    manager.sync()
    assert manager.checkpoints == [path, again]
    manager._common.job.emit.flush(30.0)
    assert isinstance(heard[-1], events.Event)
    for name in ("ckpt-1", "ckpt-2"):
        observer.verify(tmp_path, name)
    key = "variables/3/.ATTRIBUTES/VARIABLE_VALUE"
    assert [tf.train.load_variable(p, key)[0, 0] for p in (path, again)] == [3.0, 0.0]
    assert observer.leftovers(tmp_path) == []
