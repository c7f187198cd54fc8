"""Names are waited for; names that never come are told from pods that are late."""

from __future__ import annotations

import threading

import pytest

from distckpt.errors import ConfigurationError, DeadlineExceededError
from distckpt.launcher.pod import host_names

# Names below .invalid never exist (RFC 2606).
NOBODY = ["a.invalid", "b.invalid"]


def test_names_that_can_be_resolved_are_not_waited_for():
    host_names.wait_for_names(["localhost", "127.0.0.1", "own.invalid"], "own.invalid", 60.0, print)


def test_a_worker_alone_waits_for_nobody():
    host_names.wait_for_names(["own.invalid"], "own.invalid", 0.0, print)


def test_if_not_even_the_own_name_is_known_the_set_up_is_wrong():
    with pytest.raises(ConfigurationError, match=r"a\.invalid, b\.invalid.*headless Service"):
        host_names.wait_for_names(["own.invalid", *NOBODY], "own.invalid", 0.3, print)


def test_if_only_the_own_name_is_known_all_others_are_late():
    """One pod of three has found a node; the Service is as it should be."""
    with pytest.raises(DeadlineExceededError, match=r"a\.invalid, b\.invalid\. Check that"):
        host_names.wait_for_names(["localhost", *NOBODY], "localhost", 0.5, print)


def test_if_some_are_known_the_rest_is_late():
    with pytest.raises(DeadlineExceededError, match=r"resolved: a\.invalid\. Check that"):
        host_names.wait_for_names(["own", "localhost", "a.invalid"], "own", 0.5, print)


def test_it_says_whom_it_waits_for(monkeypatch):
    monkeypatch.setattr(host_names, "SAY_EVERY", 0.05)
    said = []
    with pytest.raises(ConfigurationError):
        host_names.wait_for_names(["own.invalid", *NOBODY], "own.invalid", 0.4, said.append)
    assert said[0] == "waiting for the names of a.invalid, b.invalid to be resolved"


def test_of_many_names_some_are_named():
    hosts = [f"n{i}.invalid" for i in range(20)]
    with pytest.raises(ConfigurationError, match=r"and 12 more"):
        host_names.wait_for_names(["own.invalid", *hosts], "own.invalid", 0.2, print)


def test_many_names_take_no_more_threads_than_there_may_be(monkeypatch):
    counts = []

    def look_up(host, port):
        counts.append(threading.active_count())
        if host.endswith(".invalid"):
            raise OSError

    monkeypatch.setattr(host_names.socket, "getaddrinfo", look_up)
    before = threading.active_count()
    host_names.wait_for_names(["own", *(f"n{i}" for i in range(1000))], "own", 60.0, print)
    with pytest.raises(DeadlineExceededError):
        host_names.wait_for_names(
            ["own", "a", *(f"n{i}.invalid" for i in range(1000))], "own", 2, print
        )
    assert max(counts) <= before + 2 * host_names._THREADS
    assert len(counts) >= 1000 + 1 + 2 * 1000  # those that are not there are looked up again
