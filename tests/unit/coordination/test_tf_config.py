"""All who read TF_CONFIG agree with each other, and with TensorFlow."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.distribute import multi_worker_util
from tensorflow.python.distribute.cluster_resolver import tfconfig_cluster_resolver

from distckpt.coordination.choose import default_coordinator
from distckpt.coordination.rendezvous import Place
from distckpt.core import tf_config
from distckpt.errors import ConfigurationError
from distckpt.launcher.pod.environment import find
from distckpt.launcher.pod.spec import PodSpec

SPEC = PodSpec(command=["true"])


def likely():
    """Values of TF_CONFIG that are nearly right."""
    addresses = st.lists(st.sampled_from(["a:1", "b:2", "", "b", "a..b:1", "b:70000", None, 3]))
    kinds = st.sampled_from(["chief", "master", "worker", "ps", "evaluator", "workers"])
    index = st.none() | st.integers(-1, 3) | st.sampled_from(["0", "1", 1.0, True, []])
    return st.fixed_dictionaries(
        {},
        optional={
            "cluster": st.none() | st.dictionaries(kinds, addresses | st.none() | st.just("a:1")),
            "task": st.none() | st.fixed_dictionaries({}, optional={"type": kinds, "index": index}),
        },
    )


def outcome(call):
    try:
        return call()
    except ConfigurationError as error:
        return error


@given(likely())
@settings(max_examples=300)
def test_all_who_read_it_accept_the_same(config):
    environ = {"TF_CONFIG": json.dumps(config)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CONFIG", environ["TF_CONFIG"])
        place = outcome(Place.of_this_process)
        chosen = outcome(default_coordinator)
    parsed = outcome(lambda: tf_config.of(environ))
    identity = outcome(lambda: find(environ, "laptop", SPEC))
    if isinstance(parsed, ConfigurationError):
        assert {str(place), str(chosen), str(identity)} == {str(parsed)}
        return
    if not parsed.cluster:
        assert place is None
        assert "Cannot tell which worker" in str(identity)
    elif parsed.task is not None:
        assert identity.name == parsed.task.name
    if isinstance(place, Place):
        assert (place.index, len(place.names)) == (parsed.index, len(parsed.workers))


def right():
    """Values of TF_CONFIG whose parts are right, if not all of them go together."""
    kinds = st.sampled_from(["chief", "worker", "ps", "evaluator"])
    addresses = st.lists(st.just("a:1"), min_size=1, max_size=3)
    by_index = addresses.map(lambda found: {str(i): a for i, a in enumerate(found)})
    cluster = st.dictionaries(kinds, addresses | by_index, min_size=1)
    index = st.integers(0, 3) | st.sampled_from(["0", "1", 1.0])
    task = st.fixed_dictionaries({"type": kinds, "index": index})
    return st.fixed_dictionaries({"cluster": cluster, "task": task})


@given(right())
@settings(max_examples=300)
def test_workers_have_the_numbers_that_tensorflow_gives_them(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CONFIG", json.dumps(config))
        resolver = tfconfig_cluster_resolver.TFConfigClusterResolver()
        cluster, kind, number = resolver.cluster_spec(), resolver.task_type, resolver.task_id
    try:
        expected = multi_worker_util.id_in_cluster(cluster, kind, number)
    except ValueError:
        return  # the task is not in the cluster, is a parameter server, or there are two chiefs
    parsed = tf_config.parse(json.dumps(config))
    if parsed.has_parameter_servers or parsed.is_evaluator:
        assert parsed.index is None
    else:
        count = multi_worker_util.worker_count(cluster, kind)
        assert (parsed.index, len(parsed.workers)) == (expected, count)


@pytest.mark.parametrize(
    ("cluster", "task", "text"),
    [
        ({"worker": None}, {}, "must be a list"),
        ({"worker": "a:1"}, {}, "must be a list"),
        ({}, [], '"task" must be an object'),
        ({"master": ["m:1"], "worker": ["a:1", "b:1"]}, {}, "names 3 workers"),
        ({"worker": ["a:1", "b:1"], "evaluator": ["e:1"]}, {}, "names 2 workers"),
    ],
)
def test_a_process_without_a_strategy_is_told(monkeypatch, cluster, task, text):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(ConfigurationError, match=text):
        default_coordinator()
