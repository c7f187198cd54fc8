"""Lists of nodes, and who is who in a job step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.errors import ConfigurationError
from distckpt.launcher.pod import slurm

STEP = {
    "SLURM_STEP_NODELIST": "gpu[01-02],login1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "3",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("a", ["a"]),
        ("a,b-1", ["a", "b-1"]),
        ("gpu[01-03,7],login1", ["gpu01", "gpu02", "gpu03", "gpu7", "login1"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("r[1-2]n[0-1]x", ["r1n0x", "r1n1x", "r2n0x", "r2n1x"]),
        ("n[5]", ["n5"]),
    ],
)
def test_a_list_of_nodes_is_expanded(nodes, names):
    assert slurm.expand(nodes) == names


@pytest.mark.parametrize(
    "nodes",
    [
        "",
        ",",
        "a,",
        "n[",
        "n]",
        "n[]",
        "n[2-1]",
        "n[a-b]",
        "n[[1]]",
        "n[1-999999999]",
        "n[1-٣]",
        "n[0-99999][0-99999]",
        "n[0-9999]," * 11 + "a",
    ],
)
def test_a_list_that_is_none_is_refused(nodes):
    with pytest.raises(ConfigurationError):
        slurm.expand(nodes)


@given(st.text("gn0123456789-,[] ", max_size=20))
def test_any_text_is_expanded_or_refused(nodes):
    try:
        names = slurm.expand(nodes)
    except ConfigurationError:
        return
    assert names
    assert not any("[" in name or "," in name for name in names)


@pytest.mark.parametrize(
    ("counts", "expected"), [("1", [1]), ("2(x3),1", [2, 2, 2, 1]), ("3,4(x2)", [3, 4, 4])]
)
def test_tasks_per_node(counts, expected):
    assert slurm.tasks_per_node(counts) == expected


@pytest.mark.parametrize("counts", ["", "x", "0", "2(x0)", "2(x", "1,,2", "9(x999999999)"])
def test_tasks_per_node_that_make_no_sense(counts):
    with pytest.raises(ConfigurationError, match="not a valid list of tasks per node"):
        slurm.tasks_per_node(counts)


def test_each_task_has_an_address_of_its_own():
    addresses, rank = slurm.addresses(STEP, 2222)
    assert addresses == ["gpu01:2222", "gpu01:2223", "gpu02:2222", "gpu02:2223", "login1:2222"]
    assert rank == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SLURM_STEP_NODELIST": ""}, "has not set SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2"}, "names 3 nodes, but tasks for 1"),
        ({"SLURM_PROCID": "5"}, "SLURM_PROCID is 5, but there are 5 tasks"),
        ({"SLURM_PROCID": "x"}, "must be a number"),
        ({"SLURM_LOCALID": "0"}, "srun --distribution=block"),
        ({"SLURM_NODEID": "0"}, "srun --distribution=block"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, text):
    with pytest.raises(ConfigurationError, match=text):
        slurm.addresses({**STEP, **changes}, 2222)


def test_ports_end_somewhere():
    with pytest.raises(ConfigurationError, match="65535 is too high"):
        slurm.addresses(STEP, 65535)


def test_the_run_id_tells_starts_apart():
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    assert slurm.run_id(step) == "slurm-7-0-0"
    assert slurm.run_id({**step, "SLURM_RESTART_COUNT": "2"}) == "slurm-7-0-2"
    assert slurm.run_id({}) is None
