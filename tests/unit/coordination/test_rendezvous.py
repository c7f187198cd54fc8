from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

import portpicker
import pytest

from distckpt.coordination import rendezvous
from distckpt.coordination.rendezvous import Place, meet, wait_for_workers
from distckpt.core.tf_config import Task
from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.runtime import portable


def job(count, chief="worker"):
    """Returns the tasks of a job on free ports of this machine."""
    jobs = [(chief, 0), *(("worker", n if chief == "worker" else n - 1) for n in range(1, count))]
    return [Task(name, n, f"127.0.0.1:{portpicker.pick_unused_port()}") for name, n in jobs]


class Meeting:
    """Workers, as threads, that meet; `ends` is what each has raised, or None."""

    def __init__(self, tasks, indices, deadline=20.0, delays=()):
        self.tasks = tasks
        self.ends = {}
        self._threads = [
            threading.Thread(target=self._run, args=(i, deadline, d), daemon=True)
            for i, d in zip(indices, [*delays, *[0.0] * len(indices)], strict=False)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, index, deadline, delay):
        time.sleep(delay)
        try:
            meet(Place(self.tasks, index), deadline)
            self.ends[index] = None
        except Exception as error:
            self.ends[index] = error

    def end(self):
        for thread in self._threads:
            thread.join(60.0)
            assert not thread.is_alive(), "somebody waits for ever"
        return self.ends


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("chief", ["worker", "chief"])
def test_when_all_have_come_all_go_on(count, chief):
    assert Meeting(job(count, chief), range(count)).end() == dict.fromkeys(range(count))


@pytest.mark.parametrize("late", [0, 1])
def test_it_does_not_matter_who_comes_first(late):
    meeting = Meeting(job(2), [late, 1 - late], delays=[0.7])
    assert meeting.end() == {0: None, 1: None}


def test_the_port_is_free_for_tensorflow_afterwards():
    tasks = job(3)
    assert Meeting(tasks, range(3)).end() == dict.fromkeys(range(3))
    with socket.socket() as server:  # without SO_REUSEADDR: not even a closing connection is there
        server.bind(("127.0.0.1", int(tasks[0][2].rpartition(":")[2])))


def test_who_never_starts_is_named_to_all_that_have():
    tasks = job(4)
    ends = Meeting(tasks, [0, 2], deadline=1.0).end()
    assert [type(end) for end in ends.values()] == [DeadlineExceededError] * 2
    texts = {str(end) for end in ends.values()}
    (text,) = texts
    assert "Of 4 workers in TF_CONFIG, these have not started within 1 s" in text
    assert f"worker 1 ({tasks[1][2]}), worker 3 ({tasks[3][2]}). Look at" in text


def test_a_chief_that_never_starts_is_named():
    tasks = job(2, "chief")
    (end,) = Meeting(tasks, [1], deadline=0.8).end().values()
    assert isinstance(end, DeadlineExceededError)
    assert f"chief ({tasks[0][2]}) has not started within 0.8 s: " in str(end)
    assert "refused" in str(end)
    assert f"This is worker 0 ({tasks[1][2]})" in str(end)


def test_a_name_that_nobody_knows_is_told():
    tasks = [Task("worker", 0, "no-such-host.invalid:2222"), Task("worker", 1, "127.0.0.1:2223")]
    (end,) = Meeting(tasks, [1], deadline=0.5).end().values()
    assert isinstance(end, DeadlineExceededError)
    assert "no-such-host.invalid:2222" in str(end)


def test_a_worker_that_dies_while_it_waits_may_come_again():
    tasks = job(3)
    chief = Meeting(tasks, [0])
    place = Place(tasks, 1)
    deadline = time.monotonic() + 10.0
    while True:
        try:
            with socket.create_connection(place.chiefs(), 1.0) as link:
                rendezvous._send(link, {"worker": 1, "job": place.job, "host": "h", "pid": 1})
                time.sleep(0.2)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    again = Meeting(tasks, [1, 2])
    assert again.end() == {1: None, 2: None}
    assert chief.end() == {0: None}


def test_two_of_one_index_are_told():
    tasks = job(3)
    both = [Meeting(tasks, [0], deadline=3.0), Meeting(tasks, [1], deadline=3.0)]
    time.sleep(0.7)
    (end,) = Meeting(tasks, [1], deadline=3.0).end().values()
    assert isinstance(end, ConfigurationError)
    assert f"says that it is worker 1 ({tasks[1][2]}), and so does another process" in str(end)
    for meeting in both:
        assert "worker 2 (" in str(*meeting.end().values())


def test_another_cluster_is_told():
    tasks = job(3)
    other = [*tasks[:2], Task("worker", 2, "127.0.0.1:1")]
    chief = Meeting(tasks, [0], deadline=2.0)
    (end,) = Meeting(other, [1], deadline=2.0).end().values()
    assert isinstance(end, ConfigurationError)
    assert "with another cluster in its TF_CONFIG" in str(end)
    assert isinstance(*chief.end().values(), DeadlineExceededError)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 9000, b"{}\n", b'{"worker": true}\n', b"[" * 900]
)
def test_strangers_do_not_disturb(noise):
    tasks = job(2)
    meeting = Meeting(tasks, [0], deadline=20.0)
    deadline = time.monotonic() + 10.0
    while True:
        try:
            with socket.create_connection(Place(tasks, 0).chiefs(), 1.0) as link:
                link.sendall(noise)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert Meeting(tasks, [1]).end() == {1: None}
    assert meeting.end() == {0: None}


def test_a_stranger_who_never_comes_to_the_point_holds_nobody_up():
    tasks = job(2)
    meeting = Meeting(tasks, [0], deadline=20.0)
    over = threading.Event()

    def trickle():
        with until_it_listens(tasks) as link:
            while not over.wait(0.3):
                link.sendall(b"x")

    stranger = threading.Thread(target=trickle, daemon=True)
    stranger.start()
    time.sleep(1.0)
    began = time.monotonic()
    assert Meeting(tasks, [1]).end() == {1: None}
    assert time.monotonic() - began < 10.0
    assert meeting.end() == {0: None}
    over.set()


def test_many_strangers_who_say_nothing_hold_nobody_up():
    tasks = job(2)
    meeting = Meeting(tasks, [0], deadline=30.0)
    strangers = [until_it_listens(tasks) for _ in range(200)]
    began = time.monotonic()
    assert Meeting(tasks, [1], deadline=30.0).end() == {1: None}
    assert time.monotonic() - began < 5.0
    assert meeting.end() == {0: None}
    assert [stranger.recv(1) for stranger in strangers] == [b""] * 200
    for stranger in strangers:
        stranger.close()


def test_a_thousand_workers_come_at_once():
    count = 1000
    chiefs = job(1)[0]
    tasks = [chiefs, *(Task("worker", n, f"127.0.0.1:{n}") for n in range(1, count))]
    portable.allow_files(2 * count)
    place = Place(tasks, 0)
    chief = Meeting(tasks, [0], deadline=60.0)
    until_it_listens(tasks).close()
    began = time.monotonic()
    links = [socket.create_connection(place.chiefs(), 30.0) for _ in range(1, count)]
    for worker, link in enumerate(links, 1):
        rendezvous._send(link, {"worker": worker, "job": place.job, "host": "h", "pid": worker})
    assert [rendezvous._receive(link, 30.0) for link in links] == [{}] * (count - 1)
    assert time.monotonic() - began < 10.0
    for link in links:
        link.close()
    assert chief.end() == {0: None}


def test_of_many_missing_workers_a_few_are_named():
    tasks = [job(1)[0], *(Task("worker", n, f"{'x' * 200}:{n}") for n in range(1, 300))]
    worker = Task("worker", 1, "127.0.0.1:1")
    ends = Meeting([tasks[0], worker, *tasks[2:]], [0, 1], deadline=1.5).end()
    (text,) = {str(end) for end in ends.values()}
    assert "worker 13 (" in text
    assert "worker 14 (" not in text
    assert text.count(" and 286 more. ") == 1


@pytest.mark.skipif(not portable.POSIX, reason="needs a limit of open files")
def test_strangers_who_take_all_file_descriptors_hold_nobody_up(tmp_path):
    program = tmp_path / "chief.py"
    program.write_text(
        "import resource, sys\n"
        "from distckpt.coordination import rendezvous\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "rendezvous.wait_for_workers(30.0)\n"
    )
    tasks = job(2)
    cluster = {"worker": [task.address for task in tasks]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
    chief = subprocess.Popen([sys.executable, str(program)], env=environment)
    strangers = [until_it_listens(tasks) for _ in range(60)]
    assert Meeting(tasks, [1], deadline=30.0).end() == {1: None}
    assert chief.wait(30.0) == 0
    for stranger in strangers:
        stranger.close()


def until_it_listens(tasks):
    deadline = time.monotonic() + 10.0
    while True:
        try:
            return socket.create_connection(Place(tasks, 0).chiefs(), 1.0)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_port_that_is_taken_is_told():
    tasks = job(2)
    host, port = Place(tasks, 0).chiefs()
    with socket.create_server((host, port)):
        (end,) = Meeting(tasks, [0]).end().values()
    assert isinstance(end, ConfigurationError)
    assert f"worker 0 ({host}:{port}) cannot listen at its own address" in str(end)


# --- TF_CONFIG


def configure(monkeypatch, **config):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}},
        {
            "cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]},
            "task": {"type": "worker", "index": 0},
        },
    ],
)
def test_where_there_is_nobody_to_wait_for_it_returns(monkeypatch, config):
    configure(monkeypatch, **config)
    wait_for_workers(0.1)
    monkeypatch.delenv("TF_CONFIG")
    wait_for_workers(0.1)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}, "has 2"),
        ({"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}, "worker 1"),
        (
            {"cluster": {"worker": ["a:1", "b..:1"]}, "task": {"type": "worker", "index": 0}},
            "b..",
        ),
        ({"cluster": {"worker": ["a:1", "b:x"]}, "task": {"type": "worker", "index": 0}}, "b:x"),
        ({"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}, "must be an object"),
    ],
)
def test_a_config_that_makes_no_sense_is_told(monkeypatch, config, text):
    configure(monkeypatch, **config)
    with pytest.raises(ConfigurationError, match=text):
        wait_for_workers(0.1)


def test_an_index_may_be_a_text_as_for_tensorflow(monkeypatch):
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    configure(monkeypatch, cluster=cluster, task={"type": "worker", "index": "1"})
    with pytest.raises(DeadlineExceededError, match="This is worker 1"):
        wait_for_workers(0.1)


@pytest.mark.parametrize("deadline", [0, -1, float("inf"), float("nan"), "5", True, None])
def test_a_deadline_is_a_number_of_seconds(deadline):
    with pytest.raises(ConfigurationError, match="deadline must be"):
        wait_for_workers(deadline)
