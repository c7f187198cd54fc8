from __future__ import annotations

import json

import pytest

from distckpt.launcher.tasks import Task, make_tasks, tf_config, worker_environment


def test_without_a_chief_all_are_workers() -> None:
    assert [task.name for task in make_tasks(3)] == ["worker 0", "worker 1", "worker 2"]


def test_with_a_chief_the_first_is_the_chief_and_workers_count_from_zero() -> None:
    assert [task.name for task in make_tasks(3, chief=True)] == ["chief", "worker 0", "worker 1"]


def test_one_process_can_be_the_chief_alone() -> None:
    assert make_tasks(1, chief=True) == (Task("chief", 0),)


def test_slugs_are_fit_for_file_names() -> None:
    assert [task.slug for task in make_tasks(2, chief=True)] == ["chief", "worker-0"]


def test_tf_config_names_all_workers_and_the_task() -> None:
    tasks = make_tasks(2)
    assert json.loads(tf_config(tasks, ["127.0.0.1:5", "127.0.0.1:6"], tasks[1])) == {
        "cluster": {"worker": ["127.0.0.1:5", "127.0.0.1:6"]},
        "task": {"type": "worker", "index": 1},
    }


def test_tf_config_with_a_chief_has_both_types() -> None:
    tasks = make_tasks(3, chief=True)
    assert json.loads(tf_config(tasks, ["h:1", "h:2", "h:3"], tasks[0])) == {
        "cluster": {"chief": ["h:1"], "worker": ["h:2", "h:3"]},
        "task": {"type": "chief", "index": 0},
    }


def test_tf_config_of_a_lone_chief_has_no_empty_worker_list() -> None:
    tasks = make_tasks(1, chief=True)
    assert json.loads(tf_config(tasks, ["h:1"], tasks[0]))["cluster"] == {"chief": ["h:1"]}


def test_tf_config_needs_one_address_for_each_task() -> None:
    tasks = make_tasks(2)
    with pytest.raises(ValueError, match="shorter"):
        tf_config(tasks, ["h:1"], tasks[0])


def environment(inherited: dict[str, str], extra: dict[str, str]) -> dict[str, str]:
    return worker_environment(inherited, extra, tf_config="{}", run_id="r", restart=2)


def test_environment_of_a_worker_has_what_the_launcher_decides() -> None:
    assert environment({}, {}) == {
        "TF_CONFIG": "{}",
        "DISTCKPT_RUN_ID": "r",
        "DISTCKPT_RESTART": "2",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
        "DISTCKPT_EXIT_CODES": "1",
    }


def test_an_inherited_log_level_is_kept() -> None:
    assert environment({"TF_CPP_MIN_LOG_LEVEL": "0"}, {})["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_extra_variables_win_over_inherited_ones() -> None:
    assert environment({"A": "1", "B": "1"}, {"A": "2"})["A"] == "2"


def test_inherited_settings_of_an_outer_launch_are_replaced() -> None:
    outer = {"TF_CONFIG": "outer", "DISTCKPT_RUN_ID": "outer", "DISTCKPT_RESTART": "7"}
    assert "outer" not in environment(outer, {}).values()
    assert environment(outer, {})["DISTCKPT_RESTART"] == "2"
