"""The quickstart's reading of a training's output, and its verdict."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[3] / "launch" / "quickstart" / "story.py"
_spec = importlib.util.spec_from_file_location("quickstart_story", _FILE)
story_module = importlib.util.module_from_spec(_spec)
sys.modules["quickstart_story"] = story_module
_spec.loader.exec_module(story_module)

BEFORE = """\
[worker 0] WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
[worker 0] I0000 00:00:1795368867.8   17616 cudart_stub.cc:31] Could not find cuda drivers
[worker 0] pid 70 starts at step 0, from scratch
[worker 1] pid 71 starts at step 0, from scratch
[worker 0] step 100/400 loss 0.4
[worker 0] saved /a b/ckpt-100
[worker 0] step 200/400 loss 0.3
[worker 0] saved /a b/ckpt-200
[worker 0] step 220/400 loss 0.2"""
DEATH = """\
distckpt launch: worker 1 (pid 71) was killed by SIGKILL; stopping the others.
[worker 0] Traceback (most recent call last):
[worker 0]   File "digits.py", line 1, in <module>
[worker 0] tensorflow.python.framework.errors_impl.UnavailableError: the peer is gone
distckpt launch: restart 1 of 1, because worker 1 (pid 71) was killed by SIGKILL."""
AFTER = """\
[worker 1] pid 81 starts at step 200, from /a b/ckpt-200
[worker 0] pid 80 starts at step 200, from /a b/ckpt-200
[worker 0] step 400/400 loss 0.1
[worker 0] saved /a b/ckpt-400
[worker 0] test accuracy 0.9750 on 360 digits"""


def tell(story, text: str) -> list[str]:
    news = [story.read(line) for line in text.splitlines()]
    return [each.text for each in news if each]


def whole(before: str = BEFORE, death: str = DEATH, after: str = AFTER):
    story = story_module.Story()
    tell(story, before)
    story.kill()
    tell(story, death)
    tell(story, after)
    return story


def test_it_tells_starts_and_commits_and_leaves_out_chatter() -> None:
    assert tell(story_module.Story(), BEFORE) == [
        "worker 0 (pid 70) starts at step 0",
        "worker 1 (pid 71) starts at step 0",
        "step 100: ckpt-100 is committed",
        "step 200: ckpt-200 is committed",
    ]


def test_it_knows_pids_and_steps() -> None:
    story = story_module.Story()
    tell(story, BEFORE)
    assert (story.pids, story.step, story.saved) == ({0: 70, 1: 71}, 220, 200)
    assert story.now == "step 220/400 loss 0.2"


def test_of_the_survivors_traceback_only_the_error_is_told() -> None:
    story = story_module.Story()
    tell(story, BEFORE)
    story.kill()
    told = tell(story, DEATH)
    assert len(told) == 3
    assert told[1] == "[worker 0] UnavailableError: the peer is gone (the rest is in its log)"
    assert told[2].startswith("restarted: distckpt launch: restart 1 of 1")


def test_an_unknown_line_is_told_as_it_is() -> None:
    line = "[worker 0]   File 'digits.py', line 1"
    assert tell(story_module.Story(), line) == [line]


def test_it_tells_where_the_training_resumed() -> None:
    story = whole(after="")
    assert tell(story, AFTER)[0] == "worker 1 (pid 81) resumed at step 200 from ckpt-200"
    assert story.pids == {0: 80, 1: 81}


def test_a_training_that_was_killed_and_resumed_is_a_success() -> None:
    story = whole()
    assert story.problems(0, 0.95) == []
    assert (story.killed_at, story.safe, story.accuracy) == (220, 200, 0.975)
    assert story.resumed_at == {0: 200, 1: 200}


def test_a_worker_that_resumes_before_the_last_commit_is_a_failure() -> None:
    story = whole(
        after=AFTER.replace(
            "[worker 1] pid 81 starts at step 200", "[worker 1] pid 81 starts at step 100"
        )
    )
    (problem,) = story.problems(0, 0.95)
    assert problem == "step 200 was committed, but resumed was at: 100, 200"


@pytest.mark.parametrize(
    ("story", "exit_code", "problem"),
    [
        (whole(), 1, "the training ended with exit code 1"),
        (whole(death=""), 0, "the workers were not started again"),
        (
            whole(after=AFTER.replace("0.9750", "0.9400")),
            0,
            "the test accuracy is 94.0%, below 95.0%",
        ),
        (whole(after=AFTER[: AFTER.rindex("\n")]), 0, "no test accuracy was reported"),
    ],
)
def test_what_is_missing_is_named(story, exit_code: int, problem: str) -> None:
    assert story.problems(exit_code, 0.95) == [problem]


def test_a_training_that_nobody_killed_is_a_failure() -> None:
    story = story_module.Story()
    tell(story, BEFORE)
    assert story.problems(0, 0.95)[0].startswith("no worker was killed")
