"""What `--json` prints: the documented keys, in every command, also if something is damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from distckpt.cli import main

from .conftest import names
from .damages import COMMANDS, DATA, KINDS, call, empty, leftover, prepare

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def documented():
    """Returns the documented keys of each command."""
    page = PAGE.read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`.*) \|$", page[page.index("## JSON") :], re.M)
    return {command: set(re.findall(r"`([a-z_]+)`", keys)) for command, keys in rows}


KEYS = documented()


def said(*words, code=0):
    """Returns the documents that a command prints."""
    done = call(*words, "--json")
    assert done.exit_code == code, done.output
    one = words[0] != "watch"
    return json.loads(done.stdout) if one else [json.loads(x) for x in done.stdout.splitlines()]


def test_every_command_but_launch_has_it():
    with_it = {
        name
        for name, command in main.commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_it == set(main.commands) - {"launch"} == set(KEYS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_keys_are_the_documented_ones(run, command):
    prepare(run, command, "nothing is wrong", KINDS["nothing is wrong"][0])
    found = said(*COMMANDS[command](run))
    if command == "watch":
        (found,) = found
        assert set(found) == {"time", "event", "newest", "checkpoints"}
        assert set(found) < KEYS[command]
    else:
        assert set(found) == KEYS[command]


def test_pin_and_unpin(run):
    one = run / "ckpt-3"
    assert said("pin", one) == {
        "checkpoint": str(one),
        "pinned": True,
        "changed": True,
        "problem": "",
    }
    assert said("pin", one)["changed"] is False
    assert said("unpin", one) == {"checkpoint": str(one), "pinned": False, "changed": True}
    os.truncate(run / DATA, 1000)
    found = said("pin", run, code=1)
    assert found["checkpoint"] == str(run / "ckpt-5")
    assert found["problem"] == f"{DATA} has 1000 bytes instead of 80283."
    assert found["pinned"]


def test_prune_says_what_is_deleted_and_what_is_kept(run):
    plan = said("prune", run, "--max-to-keep", "2", "--dry-run")
    assert [(one["name"], one["step"]) for one in plan["deleted"]] == [
        ("ckpt-2", 20),
        ("ckpt-3", 30),
    ]
    assert plan["kept"] == ["ckpt-4", "ckpt-5"]
    assert plan["rules"] == "max_to_keep=2"
    assert names(run) == ["ckpt-2", "ckpt-3", "ckpt-4", "ckpt-5"]
    done = call("prune", run, "--max-to-keep", "2", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Cannot ask with --json" in done.stderr
    found = said("prune", run, "--max-to-keep", "2", "--yes")
    assert found == {**plan, "dry_run": False}
    assert names(run) == ["ckpt-4", "ckpt-5"]
    assert said("prune", run, "--max-to-keep", "2", "--yes")["deleted"] == []


def test_prune_of_an_empty_and_of_a_damaged_directory(run):
    (run / "ckpt-5.manifest.json").write_text("{")
    found = said("prune", run, "--max-to-keep", "2", "--yes", code=1)
    assert [one["name"] for one in found["deleted"]] == ["ckpt-2"]
    assert [one["name"] for one in found["damaged"]] == ["ckpt-5"]
    empty(run)
    found = said("prune", run)
    assert (found["deleted"], found["kept"], found["bytes"]) == ([], [], 0)


def test_rollback_says_where_the_later_ones_are(run):
    plan = said("rollback", run, "ckpt-3", "--dry-run")
    assert [one["name"] for one in plan["later"]] == ["ckpt-5", "ckpt-4"]
    assert (plan["newest"], plan["folder"], plan["deleted"]) == ("ckpt-3", None, False)
    done = call("rollback", run, "ckpt-3", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    found = said("rollback", run, "ckpt-3", "--yes")
    assert names(found["folder"]) == ["ckpt-4", "ckpt-5"]
    assert said("rollback", run, "ckpt-3", "--yes")["later"] == []


def test_rollback_with_delete_leaves_no_folder(run):
    found = said("rollback", run, "ckpt-4", "--delete", "--yes")
    assert (found["deleted"], found["folder"]) == (True, None)
    assert not list(run.glob("set-aside-*"))


def test_export_lists_what_it_has_written_and_omitted(run, tmp_path):
    found = said("export", run, tmp_path / "out.npz")
    assert found["checkpoint"] == str(run / "ckpt-5")
    assert (found["form"], found["files"]) == ("npz", [str(tmp_path / "out.npz")])
    assert found["bytes"] == (tmp_path / "out.npz").stat().st_size
    assert found["tensors"] == 3
    assert found["omitted"] == ["_CHECKPOINTABLE_OBJECT_GRAPH"]


def test_import_says_what_it_has_committed(run):
    (run / "ckpt-5.manifest.json").unlink()
    found = said("import", run / "ckpt-5", "--step", "7")
    assert (found["checkpoint"], found["step"], found["tensors"]) == (str(run / "ckpt-5"), 7, 4)


def test_doctor_lists_its_findings(run, tmp_path):
    found = said("doctor", run)
    assert found["good"]
    assert found["workers"] is None
    assert {one["result"] for one in found["findings"]} <= {"ok", "warn"}
    assert found["findings"][0]["check"] == "directory"
    assert said("doctor", run, "--free", "900T", code=78)["findings"][-1]["result"] == "fail"
    (tmp_path / "file").write_text("x")
    found = said("doctor", tmp_path / "file", code=78)
    assert not found["good"]
    assert "is a file" in found["findings"][0]["text"]
    found = said("doctor", run, "--workers", "2", "--timeout", "0.1", code=69)
    assert found["workers"] == 2
    assert found["findings"][-1] | {"text": ""} == {
        "check": "workers",
        "result": "fail",
        "text": "",
    }


def test_timeline_of_a_damaged_and_of_an_empty_directory(run):
    (run / "ckpt-5.manifest.json").write_text("{")
    found = said("timeline", run, code=1)
    assert [one["name"] for one in found["saves"]] == ["ckpt-2", "ckpt-3", "ckpt-4"]
    assert [one["name"] for one in found["damaged"]] == ["ckpt-5"]
    empty(run)
    assert said("timeline", run) == {"directory": str(run), "saves": [], "damaged": []}


def test_watch_prints_a_line_for_each_event(run):
    leftover(run)
    lines = said("watch", run, "--for", "0")
    assert [line["event"] for line in lines] == ["left over", "found"]
    assert lines[0]["name"] == "ckpt-6"
    assert lines[1]["newest"] == "ckpt-5"
    shutil.rmtree(run)
    run.mkdir()
    (line,) = said("watch", run, "--for", "0")
    assert (line["newest"], line["checkpoints"]) == (None, [])


def test_verify_describes_a_checkpoint_that_has_lost_its_index(run):
    (run / "ckpt-5.index").unlink()
    (found,) = said("verify", run, code=1)["checkpoints"]
    assert (found["name"], found["good"]) == ("ckpt-5", False)
    assert found["problem"].endswith("ckpt-5.index cannot be read: No such file or directory.")
