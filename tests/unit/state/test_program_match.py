"""What of a program's state a checkpoint has is known before, and is what TensorFlow restores."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf

import distckpt
from distckpt.coordination.in_process import InProcessJob
from distckpt.errors import ConfigurationError, RestoreError
from distckpt.state.loading.program_match import match

from .conftest import together


def module(**children):
    made = tf.Module()
    for name, child in children.items():
        setattr(made, name, child)
    return made


def layer(number=1.0):
    return module(kernel=tf.Variable([number, number]), bias=tf.Variable(number))


def dense(built):
    import keras

    model = keras.Sequential([keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")])
    if built:
        model.build((None, 3))
    return model


def table():
    made = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    made.insert(tf.constant([1], tf.int64), tf.constant([1], tf.int64))
    return made


def old_optimizer():
    made = layer()
    optimizer = tf.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.constant([1.0, 1.0]), made.kernel)])
    return {"model": made, "optimizer": optimizer}


def shared():
    one = tf.Variable(1.0)
    return module(first=one, second=module(again=one))


# name: what was saved, what is there, how many have state, what has no value, what is too much, and
# whether something waits.
CASES = {
    "the same": (
        lambda: {"model": layer(), "step": tf.Variable(1)},
        lambda: {"model": layer(), "step": tf.Variable(1)},
        (3, [], [], False),
    ),
    "renamed": (
        lambda: {"model": layer()},
        lambda: {"net": layer()},
        (2, ["net/bias", "net/kernel"], ["model/bias", "model/kernel"], False),
    ),
    "renamed, but not the step": (
        lambda: {"model": layer(), "step": tf.Variable(1)},
        lambda: {"net": layer(), "step": tf.Variable(1)},
        (3, ["net/bias", "net/kernel"], ["model/bias", "model/kernel"], False),
    ),
    "renamed within": (
        lambda: {"model": module(one=layer())},
        lambda: {"model": module(other=layer())},
        (
            2,
            ["model/other/bias", "model/other/kernel"],
            ["model/one/bias", "model/one/kernel"],
            False,
        ),
    ),
    "nothing yet": (
        lambda: {"model": layer()},
        lambda: {"model": tf.Module()},
        (0, [], ["model/bias", "model/kernel"], True),
    ),
    "a part not built, the rest new": (
        lambda: {"model": layer()},
        lambda: {"model": tf.Module(), "step": tf.Variable(1)},
        (1, ["step"], ["model/bias", "model/kernel"], True),
    ),
    "not built, in Keras": (
        lambda: {"model": dense(True)},
        lambda: {"model": dense(False), "step": tf.Variable(1)},
        (1, ["step"], None, True),
    ),
    "built, in Keras": (lambda: {"model": dense(True)}, lambda: {"model": dense(True)}, None),
    "more": (lambda: {"a": layer()}, lambda: {"a": layer(), "b": table()}, (3, ["b"], [], False)),
    "less": (lambda: {"a": layer(), "b": table()}, lambda: {"a": layer()}, (2, [], ["b"], False)),
    "tables": (lambda: {"a": table()}, lambda: {"a": table()}, (1, [], [], False)),
    "a list": (
        lambda: {"all": [tf.Variable(1), tf.Variable(2)]},
        lambda: {"all": [tf.Variable(1), tf.Variable(2), tf.Variable(3)]},
        (3, ["all/2"], [], False),
    ),
    "shared": (lambda: {"it": shared()}, lambda: {"it": shared()}, (1, [], [], False)),
    "strange names": (
        lambda: {"it": {"a/b": tf.Variable(1)}},
        lambda: {"it": {"c/d": tf.Variable(1)}},
        (1, ["it/c.Sd"], ["it/a.Sb"], False),
    ),
    "slots": (old_optimizer, old_optimizer, None),
    "slots to come": (
        old_optimizer,
        lambda: {"model": layer(), "optimizer": tf.compat.v1.train.AdamOptimizer()},
        (2, [], ["optimizer/beta1_power", "optimizer/beta2_power"], True),
    ),
}


def restored(status):
    """What TensorFlow says: whether all of the program has a value, and all values an object."""
    found = []
    for method in (status.assert_existing_objects_matched, status.assert_consumed):
        try:
            method()
            found.append(True)
        except AssertionError:
            found.append(False)
    return found


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("counted", [True, False], ids=["save", "write"])
def test_a_program_and_a_checkpoint_are_compared(tmp_path, name, counted):
    save, there, expected = CASES[name]
    old, new = tf.train.Checkpoint(**save()), tf.train.Checkpoint(**there())
    path = old.save(tmp_path / "x") if counted else old.write(tmp_path / "x")
    found = match(new, str(path))
    if expected is not None:
        count, missing, unused, waiting = expected
        assert (found.count, sorted(found.missing), found.waiting) == (count, missing, waiting)
        assert unused is None or sorted(found.unused) == unused
    else:
        assert found.count > 2
        assert (found.missing, found.unused) == ((), ())
    assert found.nothing == (name in ("renamed", "renamed within", "strange names"))
    status = new.restore(path) if counted else new.read(path)
    matched, consumed = restored(status)
    assert matched == (not found.missing)
    assert consumed == (not found.missing and not found.unused)
    status.expect_partial()


def test_a_root_with_more_beside_it_is_compared(tmp_path):
    path = tf.train.Checkpoint(layer(), step=tf.Variable(1)).save(tmp_path / "x")
    same = match(tf.train.Checkpoint(layer(), step=tf.Variable(1)), path)
    assert (same.count, same.missing, same.unused) == (3, (), ())
    other = match(tf.train.Checkpoint(layer(), epoch=tf.Variable(1)), path)
    assert (other.count, other.missing, other.unused) == (3, ("epoch",), ("step",))


def test_a_checkpoint_of_tensorflow_1_is_left_to_tensorflow(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("v", initializer=1.0, use_resource=True)
        session.run(variable.initializer)
        path = tf.compat.v1.train.Saver([variable]).save(session, str(tmp_path / "x"))
    assert match(tf.train.Checkpoint(v=tf.Variable(2.0)), path) is None


# --- What is said, and when it is an error


def manager_of(make, folder, require="off", **tracked):
    options = distckpt.ManagerOptions(durable=False, require_match=require)
    return make(tf.train.Checkpoint(**tracked), folder, options=options)


@pytest.fixture
def saved(make, tmp_path):
    make(tf.train.Checkpoint(model=layer(), step=tf.Variable(5)), tmp_path).save()
    return tmp_path


def records(caplog):
    return [(r.levelname, r.getMessage()) for r in caplog.records if "value" in r.getMessage()]


def test_one_warning_says_that_nothing_matches_with_names_of_both_sides(make, saved, caplog):
    net = layer(7.0)
    path = manager_of(make, saved, net=net).restore_or_initialize()
    assert path == f"{saved}/ckpt-1"
    assert net.bias.numpy() == 7.0
    ((level, text),) = records(caplog)
    assert level == "WARNING"
    assert text.startswith(f"{path} has a value for none of the 2 variables of the program.")
    assert "Without a value: net/kernel, net/bias. Not in the program: " in text
    assert "model/kernel, model/bias" in text
    assert "These keep their values" in text


def test_one_warning_says_how_many_do_not_match(make, saved, caplog):
    step = tf.Variable(0)
    many = [tf.Variable(1) for _ in range(20)]
    manager_of(make, saved, many=many, step=step).restore_or_initialize()
    assert step.numpy() == 5
    ((level, text),) = records(caplog)
    assert level == "WARNING"
    assert "no value for 20 of the 21 variables" in text
    assert "many/4 and 15 more" in text


@pytest.mark.parametrize("tracked", [dict, lambda: {"model": tf.Module()}], ids=["none", "unbuilt"])
@pytest.mark.parametrize("require", ["off", "some", "all"])
def test_a_program_without_variables_yet_is_no_fault(make, saved, caplog, tracked, require):
    caplog.set_level(logging.INFO, "distckpt")
    manager = manager_of(make, saved, require, **tracked())
    assert manager.restore_or_initialize() == f"{saved}/ckpt-1"
    assert {r.levelname for r in caplog.records} == {"INFO"}
    assert "has values that the program lacks, but may use later: step, model/" in caplog.text


def test_a_program_that_matches_hears_nothing(make, saved, caplog):
    caplog.set_level(logging.INFO, "distckpt")
    manager_of(make, saved, "all", model=layer(), step=tf.Variable(0)).restore_or_initialize()
    assert "variables of the program" not in caplog.text
    assert records(caplog) == []


@pytest.mark.parametrize("require", ["some", "all"])
def test_it_is_an_error_on_demand_and_changes_nothing(make, saved, require):
    tracked = {"net": layer(7.0), "table": table()}
    if require == "all":
        tracked["step"] = tf.Variable(9)
    manager = manager_of(make, saved, require, **tracked)
    with pytest.raises(RestoreError, match="Nothing was restored from it") as caught:
        manager.restore_or_initialize()
    assert "net/kernel, net/bias" in str(caught.value)
    assert require == "some" or tracked["step"].numpy() == 9
    assert tf.train.latest_checkpoint(saved) == f"{saved}/ckpt-1"


def test_some_are_enough(make, saved):
    step = tf.Variable(9)
    manager_of(make, saved, "some", net=layer(), step=step).restore_or_initialize()
    assert step.numpy() == 5


def test_all_workers_raise_the_same_error(make, saved):
    job, options = InProcessJob(2), distckpt.ManagerOptions(durable=False, require_match="some")
    programs = [tf.train.Checkpoint(model=layer(7.0)), tf.train.Checkpoint(net=layer(7.0))]
    managers = [
        make(program, saved, coordinator=job.coordinator(index), options=options)
        for index, program in enumerate(programs)
    ]

    def run(manager):
        with pytest.raises(RestoreError) as caught:
            manager.restore_or_initialize()
        return str(caught.value), caught.value.worker

    first, second = together([lambda m=m: run(m) for m in managers])
    assert first == second
    assert "net/bias" in first[0]
    assert first[1] == 1


@pytest.mark.parametrize("require", ["off", "some"])
def test_what_only_one_worker_has_is_compared_too(make, tmp_path, caplog, require):
    options = distckpt.ManagerOptions(durable=False, require_match=require)

    def restore(**tracked):
        return make(
            tf.train.Checkpoint(step=tf.Variable(1)),
            tmp_path,
            worker_checkpoint=tf.train.Checkpoint(**tracked),
            options=options,
        )

    restore(mine=tf.Variable(1)).save()
    manager = restore(own=tf.Variable(2))
    if require == "some":
        with pytest.raises(RestoreError, match=r"Without a value: own\. Not in the program: mine"):
            manager.restore_or_initialize()
    else:
        manager.restore_or_initialize()
        assert "Without a value: own. Not in the program: mine" in caplog.text


def test_a_word_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match='require_match must be "off" or "some" or "all"'):
        distckpt.ManagerOptions(require_match="any")
