"""`worker_checkpoint`: what only one worker has goes with the rest, and comes back to it."""

from __future__ import annotations

import logging
import pathlib

import pytest
import tensorflow as tf

import distckpt
from distckpt import errors
from distckpt.coordination.in_process import InProcessJob

from ..state.conftest import together
from .conftest import FAST


class Everywhere(tf.__internal__.tracking.AutoTrackable):
    """A count that is the same on all workers, and right for any number of them."""

    elastic = True

    def __init__(self, count):
        self.count = tf.Variable(count, dtype=tf.int64)


class Program:
    """One worker's: a common variable, and an iterator, a generator and a count of its own."""

    def __init__(self, directory, member, *, own=True, count=0, **options):
        number = member.index
        numbers = tf.data.Dataset.range(100 * number, 100 * number + 20)
        self.iterator = iter(numbers.shuffle(20, seed=number).repeat(3).batch(2))
        self.generator = tf.random.Generator.from_seed(number)
        self.everywhere = Everywhere(count)
        self.common = tf.Variable([0.0, 0.0])
        self.own = tf.train.Checkpoint(
            iterator=self.iterator, generator=self.generator, everywhere=self.everywhere
        )
        self.manager = distckpt.CheckpointManager(
            tf.train.Checkpoint(common=self.common),
            directory,
            3,
            worker_checkpoint=self.own if own else None,
            coordinator=member,
            options=FAST.__class__(**{**vars(FAST), **options}),
        )

    def draw(self, times=1):
        return [(next(self.iterator).numpy().tolist(), self.normal()) for _ in range(times)]

    def normal(self):
        return self.generator.normal([2]).numpy().tolist()


def programs(directory, workers, **kwargs):
    job = InProcessJob(workers)
    return [Program(directory, member, **kwargs) for member in map(job.coordinator, range(workers))]


def restore(directory, workers, **kwargs):
    started = programs(directory, workers, **kwargs)
    together([p.manager.restore_or_initialize for p in started])
    return started


def save(started, **kwargs):
    return together([lambda p=p: p.manager.save(**kwargs) for p in started])


@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_goes_on_where_it_was(tmp_path, workers, observer):
    first = programs(tmp_path, workers)
    for program in first:
        program.draw(7)
    save(first)
    going_on = [program.draw(5) for program in first]
    again = [program.draw(5) for program in restore(tmp_path, workers)]
    assert again == going_on
    assert len({str(drawn) for drawn in again}) == workers
    assert observer.leftovers(tmp_path) == []


def test_an_asynchronous_save_holds_the_state_of_its_moment(tmp_path):
    first = programs(tmp_path, 2, enable_async=True)
    save(first)
    going_on = [program.draw(3) for program in first]
    together([p.manager.sync for p in first])
    assert [program.draw(3) for program in restore(tmp_path, 2)] == going_on


def test_it_is_a_plain_checkpoint(tmp_path):
    (first,) = programs(tmp_path, 1)
    first.draw(2)
    save([first])
    path = str(tmp_path / "ckpt-1.worker-00000-of-00001")
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-1")
    other = tf.random.Generator.from_seed(9)
    tf.train.Checkpoint(generator=other).read(path).expect_partial()
    assert other.normal([2]).numpy().tolist() == first.normal()


def test_a_number_saved_again_takes_new_files_and_leaves_nothing(tmp_path, observer):
    first = programs(tmp_path, 2)
    for _ in range(3):
        for program in first:
            program.draw()
        save(first, checkpoint_number=1)
        assert observer.leftovers(tmp_path) == []
    going_on = [program.draw() for program in first]
    assert [program.draw() for program in restore(tmp_path, 2)] == going_on


def test_retention_takes_all_files(tmp_path):
    first = programs(tmp_path, 2)
    for _ in range(5):
        save(first)
    left = sorted(p.name for p in pathlib.Path(tmp_path).glob("*.worker-*.index"))
    assert left == [f"ckpt-{n}.worker-0000{w}-of-00002.index" for n in (3, 4, 5) for w in (0, 1)]


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["deleted", "flipped", "cut off"])
def test_all_fall_back_when_one_worker_s_state_is_damaged(tmp_path, suffix, damage):
    first = programs(tmp_path, 2)
    save(first)
    going_on = [program.draw() for program in first]
    save(first)
    path = tmp_path / f"ckpt-2.worker-00001-of-00002.{suffix}"
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(content[:-1])
    else:
        at = len(content) // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    started = restore(tmp_path, 2)
    assert {p.manager.latest_checkpoint for p in started} == {str(tmp_path / "ckpt-1")}
    assert [program.draw() for program in started] == going_on


# --- Another number of workers ------------------------------------------------------------------


@pytest.fixture
def saved_by_three(tmp_path):
    first = programs(tmp_path, 3)
    for program in first:
        program.draw(4)
        program.everywhere.count.assign(12)
        program.common.assign([1.0, 2.0])
    save(first)
    return tmp_path


def fresh(directory, workers):
    return [program.draw(2) for program in programs(directory, workers)]


@pytest.mark.parametrize("workers", [2, 4])
def test_by_default_what_is_elastic_goes_on_and_the_rest_begins_anew(
    saved_by_three, workers, caplog
):
    with caplog.at_level(logging.WARNING, "distckpt"):
        started = restore(saved_by_three, workers)
    assert [int(p.everywhere.count) for p in started] == [12] * workers
    assert [p.common.numpy().tolist() for p in started] == [[1.0, 2.0]] * workers
    assert [p.draw(2) for p in started] == fresh(saved_by_three, workers)
    text = f"saved by 3 workers, and there are {workers} now"
    assert text in caplog.text
    assert "generator, iterator" in caplog.text


def test_drop_begins_anew(saved_by_three, caplog):
    started = restore(saved_by_three, 2, worker_state_on_resize="drop")
    assert [int(p.everywhere.count) for p in started] == [0, 0]
    assert "everywhere, generator, iterator" in caplog.text


def test_error_restores_nothing_and_says_what_to_do(saved_by_three):
    with pytest.raises(errors.RestoreError, match="states of 3 workers, and there are 2 now"):
        restore(saved_by_three, 2, worker_state_on_resize="error")


def test_a_function_gets_all_states(saved_by_three):
    seen = []

    def take(states):
        seen.append((states.worker, states.workers, len(states.paths)))
        for path in states.paths:
            assert (
                tf.train.load_checkpoint(path).get_tensor(
                    "everywhere/count/.ATTRIBUTES/VARIABLE_VALUE"
                )
                == 12
            )

    restore(saved_by_three, 2, worker_state_on_resize=take)
    assert sorted(seen) == [(0, 2, 3), (1, 2, 3)]


def test_an_error_of_the_function_is_everybody_s(saved_by_three):
    def take(states):
        if states.worker == 1:
            raise ValueError("no idea")

    with pytest.raises(errors.RestoreError, match="no idea"):
        restore(saved_by_three, 2, worker_state_on_resize=take)


# --- Some have it, some not ---------------------------------------------------------------------


def test_a_checkpoint_without_worker_states_leaves_them_and_says_so(tmp_path, caplog):
    save(programs(tmp_path, 2, own=False))
    started = restore(tmp_path, 2, count=5)
    assert [int(p.everywhere.count) for p in started] == [5, 5]
    assert "ckpt-1 has no worker states" in caplog.text


def test_a_program_without_worker_state_restores_the_rest(saved_by_three):
    started = restore(saved_by_three, 3, own=False)
    assert [p.common.numpy().tolist() for p in started] == [[1.0, 2.0]] * 3


def test_on_all_workers_or_on_none(tmp_path):
    job = InProcessJob(3)
    started = [
        Program(tmp_path, member, own=member.index != 1)
        for member in map(job.coordinator, range(3))
    ]
    with pytest.raises(errors.StateMismatchError, match="not on these: worker 1"):
        save(started)
    assert not list(tmp_path.glob("ckpt-*"))


# --- Bad input ----------------------------------------------------------------------------------


def test_it_must_be_a_checkpoint(tmp_path):
    with pytest.raises(errors.ConfigurationError, match=r"worker_checkpoint must be a tf\.train"):
        distckpt.CheckpointManager(
            tf.train.Checkpoint(), tmp_path, 1, worker_checkpoint=tf.Variable(1)
        )


@pytest.mark.parametrize("policy", ["keep", None, 3])
def test_a_policy_that_there_is_not(policy):
    with pytest.raises(errors.ConfigurationError, match="worker_state_on_resize must be"):
        distckpt.ManagerOptions(worker_state_on_resize=policy)


def test_what_cannot_be_saved_fails_the_save_on_all_workers_and_leaves_nothing(tmp_path):
    first = programs(tmp_path, 2)
    save(first)
    numbers = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec(()))
    first[1].own.iterator = iter(numbers)  # Python's generators cannot be saved
    with pytest.raises(errors.SaveFailedError, match="worker 1 could not read its state"):
        save(first)
    first[1].own.iterator = first[1].iterator
    assert len(set(save(first))) == 1
