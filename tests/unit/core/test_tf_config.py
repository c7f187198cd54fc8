"""TF_CONFIG: what it says of a job, and what is refused, with advice."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core import tf_config
from distckpt.core.tf_config import parse
from distckpt.errors import ConfigurationError

TWO = {"worker": ["a:1", "b:1"]}
WITH_CHIEF = {"chief": ["c:1"], **TWO}
FIRST = {"type": "worker", "index": 0}


def said(cluster=None, task=None):
    parts = {"cluster": cluster, "task": task}
    return parse(json.dumps({name: part for name, part in parts.items() if part is not None}))


@pytest.mark.parametrize("text", ["", "  \n", "{}", '{"cluster": {}}', '{"task": {}}'])
def test_without_a_cluster_a_process_is_alone(text):
    config = parse(text)
    assert (config.cluster, config.task, config.workers, config.index) == ({}, None, (), None)


def test_a_task_without_a_cluster_is_alone():
    config = said(task=FIRST)
    assert (config.workers, config.index, config.own_task.name) == ((), None, "worker 0")
    assert said(task={"type": "evaluator", "index": 0}).is_evaluator


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "name", "number", "count"),
    [
        (TWO, "worker", 0, "worker 0", 0, 2),
        (TWO, "worker", "1", "worker 1", 1, 2),
        (TWO, "worker", 1.0, "worker 1", 1, 2),
        (WITH_CHIEF, "chief", 0, "chief", 0, 3),
        (WITH_CHIEF, "worker", 0, "worker 0", 1, 3),
        (WITH_CHIEF, "worker", 1, "worker 1", 2, 3),
        ({"master": ["m:1"], **TWO}, "master", 0, "master", 0, 3),
        ({"master": ["m:1"], **TWO}, "worker", 1, "worker 1", 2, 3),
        ({"master": ["m:1"]}, "master", 0, "master", 0, 1),
        ({**TWO, "evaluator": ["e:1"]}, "worker", 1, "worker 1", 1, 2),
        ({**TWO, "evaluator": ["e:1"]}, "evaluator", 0, "evaluator 0", None, 2),
        (TWO, "evaluator", 7, "evaluator 7", None, 2),
        ({**WITH_CHIEF, "ps": ["p:1"]}, "chief", 0, "chief", None, 0),
        ({**WITH_CHIEF, "ps": ["p:1"]}, "ps", 0, "ps 0", None, 0),
        ({"worker": {"0": "a:1", "1": "b:1"}}, "worker", 1, "worker 1", 1, 2),
        ({"worker": {"3": "a:1"}, "ps": ["p:1"]}, "worker", 3, "worker 3", None, 0),
    ],
)
def test_who_a_process_is(cluster, kind, index, name, number, count):
    config = said(cluster, {"type": kind, "index": index})
    assert (config.own_task.name, config.index, len(config.workers)) == (name, number, count)


def test_a_program_may_say_itself_which_task_it_is():
    config = said(TWO)  # as by TFConfigClusterResolver(task_type=…, task_id=…)
    assert (len(config.workers), config.task, config.index) == (2, None, None)
    with pytest.raises(ConfigurationError, match="does not say which task"):
        _ = config.own_task


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("worker", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("1" * 5000, "is not valid JSON"),
        ("null", "must be a JSON object, got null"),
        ("[]", "must be a JSON object"),
        ('"cluster"', "must be a JSON object"),
    ],
)
def test_what_is_no_object_is_refused(text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        parse(text)


@pytest.mark.parametrize(
    ("cluster", "task", "complaint"),
    [
        ({"worker": None}, FIRST, r'"cluster": "worker" must be a list .* got null'),
        ({"worker": "a:1"}, FIRST, r'"worker" must be a list like \["host:2222"\], got "a:1"'),
        ({"worker": []}, FIRST, '"worker" has no address'),
        ({**TWO, "chief": []}, FIRST, '"chief" has no address'),
        ({"worker": {}}, FIRST, '"worker" has no address'),
        ({"worker": ["a:1", None]}, FIRST, 'worker 1 must be like "host:2222", got null'),
        ({"worker": [["a:1"]]}, FIRST, "address of worker 0"),
        ({"worker": [""]}, FIRST, "address of worker 0"),
        ({"worker": {"x": "a:1"}}, FIRST, "whole numbers as keys"),
        ({"worker": {"0": "a:1", "2": "c:1"}}, FIRST, r"keys 0 to n-1, got \[0, 2\]"),
        ({"workers": ["a:1"]}, FIRST, '"workers" is not a task type that TensorFlow knows'),
        ({"chief": ["a:1", "b:1"]}, None, "more than one chief"),
        ({"chief": ["a:1"], "master": ["b:1"]}, None, "more than one chief"),
        (["a:1"], FIRST, r'"cluster" must be an object, got \["a:1"\]'),
        (TWO, [], '"task" must be an object'),
        (TWO, "worker", '"task" must be an object'),
        (TWO, {"index": 0}, '"type" must be chief, worker, ps or evaluator, got null'),
        (TWO, {"type": ["worker"], "index": 0}, '"type" must be'),
        (TWO, {"type": "Worker", "index": 0}, '"type" must be .* got "Worker"'),
        (TWO, {"type": "worker"}, '"index" must be a whole number, 0 or more, got null'),
        (TWO, {"type": "worker", "index": "one"}, '"index" must be a whole number'),
        (TWO, {"type": "worker", "index": -1}, '"index" must be .* got -1'),
        (TWO, {"type": "worker", "index": 0.5}, '"index" must be .* got 0.5'),
        (TWO, {"type": "worker", "index": True}, '"index" must be .* got true'),
        (TWO, {"type": "worker", "index": 2}, "is worker 2, and the cluster has 2 of that type"),
        (TWO, {"type": "chief", "index": 0}, "is chief, and the cluster has none"),
        (TWO, {"type": "ps", "index": 0}, "is ps 0, and the cluster has none"),
        ({**TWO, "evaluator": ["e:1"]}, {"type": "evaluator", "index": 1}, "has 1 of that type"),
        (None, {"type": "workr", "index": 0}, '"type" must be'),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_and_where(cluster, task, complaint):
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        said(cluster, task)
    assert str(caught.value).startswith("TF_CONFIG: ")
    assert "Correct it where the job is described, or unset it" in str(caught.value)


def test_null_is_not_the_same_as_nothing():
    """TensorFlow fails with a TypeError."""
    for text in ('{"cluster": null}', '{"task": null}'):
        with pytest.raises(ConfigurationError, match="must be an object, got null"):
            parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KINDS = st.sampled_from(["chief", "master", "worker", "ps", "evaluator"]) | st.text(max_size=3)
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "cluster": JSON | st.dictionaries(KINDS, JSON | st.lists(st.just("a:1") | JSON)),
        "task": JSON | st.fixed_dictionaries({}, optional={"type": KINDS | JSON, "index": JSON}),
    },
)


@given(st.one_of(JSON, LIKELY).map(json.dumps) | st.text(max_size=40))
def test_whatever_it_is_it_is_understood_or_refused(text):
    try:
        config = tf_config.of({"TF_CONFIG": text})
    except ConfigurationError:
        return
    assert config.index is None or config.workers[config.index] == config.task


def test_a_complaint_about_something_long_is_short():
    with pytest.raises(ConfigurationError) as caught:
        said({"worker": "a" * 10_000}, FIRST)
    assert len(str(caught.value)) < 1000
