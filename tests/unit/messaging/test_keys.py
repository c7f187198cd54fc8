from __future__ import annotations

from distckpt.messaging.keys import Keys


def test_keys_of_different_calls_and_managers_differ():
    calls = [Keys(m, k, n) for m in ("a", "b") for k in ("save", "restore") for n in (0, 1)]
    names = [key for call in calls for key in call.all(3)]
    assert len(set(names)) == len(names)
    assert set(calls[0].all(2)) == {
        "a/save-0/rendezvous",
        "a/save-0/opening",
        "a/save-0/outcome",
        "a/save-0/call",
        "a/save-0/refusal-0",
        "a/save-0/answer-0-0",
        "a/save-0/answer-1-0",
        "a/save-0/ready-0",
        "a/save-0/ready-1",
    }
