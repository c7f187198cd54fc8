"""What goes wrong on one real worker alone mixes no two steps, and the next call saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from distckpt.launcher import LocalCluster

from . import moments

pytestmark = pytest.mark.cluster

COUNTED = ["step_counter", "iterations", "nothing"]
# What goes wrong once, in the call after which step, and on which worker. With the call after it
# in between, in which an asynchronous save tells how it has failed.
FAULTS = [
    (2, 1, "metric"),
    (5, 1, "callback"),
    (7, 1, "capture"),
    (10, 1, "policy"),
    (13, 0, "policy"),
    (16, 0, "metric"),
    (19, 0, "capture"),
]
STEPS = 25
SKIP = (22, 1, "skip")


def saved(directory):
    """Returns the steps of the committed checkpoints; fails if one holds two, or says another."""
    steps = {}
    for path in Path(directory).glob("*.manifest.json"):
        name = path.name.removesuffix(".manifest.json")
        reader = tf.train.load_checkpoint(f"{directory}/{name}")
        parts = [
            reader.get_tensor(f"parts/{n}/.ATTRIBUTES/VARIABLE_VALUE") for n in range(moments.PARTS)
        ]
        values = {float(value) for part in parts for value in part}
        assert len(values) == 1, f"{name} is a mixture of {values}"
        steps[name] = int(values.pop())
        if reader.has_tensor("iterations/.ATTRIBUTES/VARIABLE_VALUE"):
            assert reader.get_tensor("iterations/.ATTRIBUTES/VARIABLE_VALUE") == steps[name]
    return steps


def check(directory, results, *, deadline_at=()):
    """Checks what holds whatever has gone wrong; returns the steps that are saved."""
    found = saved(directory)
    assert len(set(found.values())) == len(found), found
    assert len({tuple(r["checkpoints"]) for r in results}) == 1, results
    assert {Path(path).name for path in results[0]["checkpoints"]} == set(found)
    for result in results:
        late = [h for h in result["heard"] if "Deadline" in h[1] and h[0] not in deadline_at]
        assert not late, result["heard"]
    for result in results:
        for step, kind, path in result["heard"]:
            if kind == "path" and Path(path).name in found:
                assert found[Path(path).name] == step, result["heard"]
    return set(found.values())


def lost(faults, then, *, asynchronous):
    """Returns at which steps nothing is saved."""
    steps = set()
    for step, worker, fault in faults:
        if fault == "callback" or (then == "again" and fault != "skip"):
            continue
        steps.add(step)
        # The call after it tells of what the save in the background has met. What the chief raises
        # before that begins, all hear at once.
        chiefs = worker == 0 and fault != "capture"
        if asynchronous and then == "go on" and not chiefs:
            steps.add(step + 1)
    return steps


def expected(faults, then, *, asynchronous):
    return set(range(1, STEPS + 1)) - lost(faults, then, asynchronous=asynchronous)


def assert_heard(results, faults):
    """Each fault has struck: somebody has heard what went wrong, or the save had gone well."""
    for step, worker, fault in faults:
        if fault not in ("callback", "skip"):
            texts = [
                text for at, kind, text in results[worker]["heard"] if at == step and kind != "path"
            ]
            assert any("n/a" in text or fault in text for text in texts), (step, worker, texts)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("counted", COUNTED)
def test_the_call_after_a_fault_saves(pools, tmp_path, counted, asynchronous):
    for in_step, then in [(True, "go on"), (False, "go on"), (True, "again"), (False, "again")]:
        # In step, worker 1 would wait in a collective for the chief, and the chief for worker 1.
        blocks = in_step and (not asynchronous or then == "again")
        faults = FAULTS if counted == "nothing" or blocks else [*FAULTS, SKIP]
        directory = str(tmp_path / f"{in_step}-{then}")
        results = pools(2).run(
            "moments.run",
            directory=directory,
            steps=STEPS,
            faults=faults,
            then=then,
            counted=counted,
            in_step=in_step,
            every="steps",
            enable_async=asynchronous,
        )
        assert check(directory, results) == expected(faults, then, asynchronous=asynchronous)
        assert_heard(results, faults)


@pytest.mark.parametrize("when_busy", ["wait", "skip"])
@pytest.mark.parametrize("in_step", [True, False])
def test_a_policy_of_the_clock_saves_on_after_faults(pools, tmp_path, when_busy, in_step):
    faults = [(4, 1, "metric"), (14, 1, "policy"), (24, 1, "capture"), (34, 0, "metric")]
    results = pools(2).run(
        "moments.run",
        directory=str(tmp_path),
        steps=50,
        faults=faults,
        then="sync at tens",
        pause=0.03,
        counted="step_counter" if in_step else "iterations",
        in_step=in_step,
        every="clock",
        enable_async=True,
        when_busy=when_busy,
    )
    steps = check(tmp_path, results)
    for begin, end in [(1, 4), (11, 14), (21, 24), (31, 34), (41, 51)]:
        assert steps & set(range(begin, end)), (begin, end, steps)
    assert results[0]["skipped"] == results[1]["skipped"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_commit_that_comes_too_late_for_one_worker(pools, tmp_path, asynchronous):
    results = pools(2).run(
        "moments.run",
        directory=str(tmp_path),
        steps=6,
        faults=[(2, 0, "commit"), (4, 1, "skip")],
        then="again" if asynchronous else "go on",
        counted="step_counter" if asynchronous else "iterations",
        in_step=not asynchronous,
        enable_async=asynchronous,
        when_busy="skip",
        save_deadline=1.5,
    )
    assert check(tmp_path, results, deadline_at={4}) >= {1, 2, 3, 5, 6}
    kinds = [kind for step, kind, _ in results[1]["heard"] if step == 2]
    assert "CommitUnknownError" in kinds
    if asynchronous:  # it has asked again, and heard
        paths = [text for step, kind, text in results[1]["heard"] if (step, kind) == (2, "path")]
        assert paths.count(f"{tmp_path}/ckpt-2") == 2


def test_faults_on_two_of_three_workers(pools, tmp_path):
    faults = [
        (2, 1, "metric"),
        (2, 2, "capture"),
        (5, 2, "metric"),
        (8, 1, "capture"),
        (11, 2, "callback"),
        (13, 1, "metric"),
        (13, 2, "metric"),
        (16, 2, "capture"),
    ]
    for asynchronous in (False, True):
        for in_step in (True, False):
            directory = str(tmp_path / f"{asynchronous}-{in_step}")
            results = pools(3).run(
                "moments.run",
                directory=directory,
                steps=STEPS,
                faults=faults,
                counted="iterations",
                in_step=in_step,
                enable_async=asynchronous,
            )
            assert check(directory, results) == expected(faults, "go on", asynchronous=asynchronous)


def plain_programs(tmp_path):
    """Returns programs for processes without a strategy, which never wait for each other."""
    combinations = [
        ("step_counter", False, "again"),
        ("iterations", True, "go on"),
        ("nothing", False, "go on"),
        ("nothing", True, "again"),
    ]
    programs = [
        {
            "directory": str(tmp_path / str(number)),
            "steps": STEPS,
            "faults": FAULTS if counted == "nothing" else [*FAULTS, SKIP],
            "then": then,
            "counted": counted,
            "every": "steps",
            "enable_async": asynchronous,
        }
        for number, (counted, asynchronous, then) in enumerate(combinations)
    ]
    late = {
        "directory": str(tmp_path / "late"),
        "steps": 5,
        "faults": [(2, 0, "commit")],
        # Where nothing counts, only the calls can be counted: as many on both workers.
        "then": "sync",
        "counted": "nothing",
        "enable_async": True,
        "save_deadline": 1.5,
    }
    return [*programs, late]


def test_plain_processes_that_run_freely(tmp_path):
    programs = plain_programs(tmp_path)
    (tmp_path / "programs.json").write_text(json.dumps(programs))
    command = [sys.executable, moments.__file__]
    with LocalCluster(command, workers=2, env={"FOLDER": str(tmp_path)}) as job:
        ended = job.wait(170)
        outputs = [job.output(i) for i in range(2)]
    assert [r.returncode for r in ended] == [0, 0], outputs
    found = [json.loads((tmp_path / f"found-{i}.json").read_bytes()) for i in range(2)]
    for program, *results in zip(programs, *found, strict=True):
        steps = check(program["directory"], results)
        if "save_deadline" in program:
            assert steps >= {1, 2, 4, 5}
            continue
        faults, then = program["faults"], program["then"]
        assert steps == expected(faults, then, asynchronous=program["enable_async"]), program
        assert_heard(results, faults)
