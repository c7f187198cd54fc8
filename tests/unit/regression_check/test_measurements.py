"""The process that measures: its measurements, its counts, its answers. Nothing is timed."""

from __future__ import annotations

import collections
import json

import pytest

from distckpt.coordination.in_process import InProcess, InProcessJob
from distckpt.storage.local import LocalStorage

# --- Counts ---------------------------------------------------------------------------------------


def test_calls_of_public_methods_are_counted_only_within_the_block(tmp_path):
    from regression import counting

    class Storage(LocalStorage):
        """Has all methods from its base class."""

    with counting.counted(Storage, InProcess) as counts:
        storage = Storage()
        storage.write(str(tmp_path / "file"), b"x", durable=True)
        assert storage.read(str(tmp_path / "file")) == b"x"
        assert counts == {"storage.write": 1, "storage.flush_directory": 1, "storage.read": 1}
    storage.read(str(tmp_path / "file"))
    assert counts["storage.read"] == 1
    assert Storage.read is LocalStorage.read
    assert "read" not in vars(Storage)


def test_messages_are_counted_not_the_looks_for_them():
    from regression import counting

    class Coordinator(InProcess):
        def fetch_all(self, keys, timeout):
            found = self.fetch(keys, timeout)
            return [found] if found else []

    with counting.counted(LocalStorage, Coordinator) as counts:
        worker = Coordinator(InProcessJob(1), 0)
        assert worker.fetch_all(["a"], 0) == []
        worker.publish("a", "text")
        worker.fetch_all(["a", "b"], 0)
        worker.fetch(["a"], 0)
    assert counts == {"messages published": 1, "messages fetched": 2}


def test_only_system_calls_on_the_folder_count():
    from regression.counting import parse_trace

    lines = [
        '7 execve("/usr/bin/python", ["..."...], 0x1 /* 9 vars */) = 0',
        '7 openat(AT_FDCWD</work>, "/tmp/many/ckpt-1.index", O_RDONLY) = 3</tmp/many/ckpt-1.index>',
        "8 read(3</tmp/many/ckpt-1.index>, ..., 9 <unfinished ...>",
        '8 <... read resumed>"..., 9)      = 9',
        "7 read(4</usr/lib/x.py>, ..., 9) = 9",
        "7 +++ exited with 0 +++",
    ]
    assert parse_trace(iter(lines), "/tmp/many") == {"call of openat": 1, "call of read": 1}


# --- Measurements ---------------------------------------------------------------------------------


def sizes():
    from regression.measurements import Sizes

    return Sizes(small=5, big=2, big_bytes=2**20, shared=3, checkpoints=4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first save, 5 variables", {"files", "storage.write"}),
        ("next save, 5 variables", {"files", "storage.remove"}),
        ("save after a change, 5 variables", {"files", "storage.remove"}),
        ("restore, 5 variables", {"storage.read"}),
        ("save, 1 MiB in 2 variables", {"files", "storage.write"}),
        ("restore, 1 MiB in 2 variables", {"storage.read"}),
        ("constructor, 4 checkpoints", {"storage.read"}),
        ("save, 2 workers of 3 variables", {"files", "messages published", "messages fetched"}),
        ("distckpt ls, 4 checkpoints", set()),
    ],
)
def test_every_measurement_counts_the_same_when_it_is_made_again(tmp_path, name, expected):
    from regression import counting, measurements
    from regression.program import measure

    bench = measurements.Bench(tmp_path, sizes())
    with counting.counted(LocalStorage, InProcess) as counts:
        _, first, again = (  # a process does a little more before its second save
            measure(measurements.named(sizes())[name], bench, counts) for _ in range(3)
        )
    assert expected <= first["counts"].keys()
    for found in (first, again):
        assert found["cpu"] > 0
        found["counts"].pop("bytes", None)
    assert first["counts"] == again["counts"]


def test_all_measurements_are_tested():
    from regression.measurements import named

    (mark,) = test_every_measurement_counts_the_same_when_it_is_made_again.pytestmark
    assert list(named(sizes())) == [name for name, _ in mark.args[1]]


def test_each_save_after_a_change_saves_one_more_variable(tmp_path):
    import tensorflow as tf
    from regression import measurements

    bench, found = measurements.Bench(tmp_path, sizes()), []
    for _ in range(2):
        prepared = measurements.save_after_change(bench)
        prepared.call()
        found.append(len(tf.train.list_variables(str(measurements.newest(prepared.saved_in)))))
    assert found[1] == found[0] + 1


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path):
    from regression.measurements import Bench, Prepared
    from regression.program import serve

    answers, works = [], lambda _: Prepared(lambda: None)
    requests = [json.dumps({"measure": name}) for name in ("fails", "works")]
    known = {"fails": lambda bench: bench.no_such_thing, "works": works}
    serve(requests, answers.append, Bench(tmp_path, sizes()), known)
    assert answers[0] == {
        "error": "AttributeError: 'Bench' object has no attribute 'no_such_thing'"
    }
    assert answers[1]["counts"] == {}


def test_a_short_measurement_is_made_several_times_and_the_last_counts(tmp_path):
    from regression.measurements import Prepared
    from regression.program import measure

    counts, made = collections.Counter(), []

    def prepare(_):
        counts["preparing"] += 1
        return Prepared(call, repeat=3)

    def call():
        made.append(1)
        counts["call"] += len(made)

    assert measure(prepare, None, counts)["counts"] == {"call": 3}
    assert len(made) == 3


class Stand:
    """Stands for a child: a real one would import TensorFlow, twice."""

    pid = 1

    def __init__(self, side, fails, log):
        self.side, self.fails, self.log = side, fails, log

    def names(self, side):
        return ["works", "fails"]

    def measure(self, name):
        self.log.append((name, self.side))
        return {"error": "no"} if name == self.fails else {"cpu": 1.0, "counts": {}}


def test_what_one_commit_cannot_do_is_left_out_and_the_order_changes(capsys):
    from compare_commits import Comparison

    log = []
    both = Comparison((Stand("A", None, log), Stand("B", "fails", log)))
    rounds = [both.round(number) for number in range(3)]
    assert [list(one.samples) for one in rounds] == [["works"]] * 3
    sides = [side for name, side in log if name == "works"]
    assert sides in (list("ABBAAB"), list("BAABBA"))
    assert capsys.readouterr().err == "B cannot measure 'fails', left out: no\n"


def test_a_process_that_cannot_start_says_why(tmp_path):
    from regression.child import Child, ChildFailedError

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "tensorflow.py").write_text("raise ImportError('of another kind')")
    with (
        Child(tree, tmp_path / "A") as child,
        pytest.raises(ChildFailedError, match=r"^A: no answer(.|\n)*ImportError: of another kind$"),
    ):
        child.names("A")
