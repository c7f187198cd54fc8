"""prune: what it deletes, what it checks before, and what it says about each checkpoint."""

from __future__ import annotations

import os
import subprocess

import pytest
import tensorflow as tf

from .conftest import SCRIPT, content, flip, names, owned_by, restored

DATA = "ckpt-5.data-00000-of-00001"


def test_prune_by_the_rules_of_the_job_finds_nothing(shell, run):
    assert shell("prune", run, "--dry-run") == f"Nothing to delete in {run}.\n"


def test_prune_by_other_rules(shell, run):
    rules = ["--max-to-keep", "1", "--keep", "EverySteps(40)"]
    text = shell("prune", run, *rules, "--yes")
    assert "Deleted 2, kept 2." in text
    assert names(run) == ["ckpt-4", "ckpt-5"]
    assert restored(run / "ckpt-4") == (40, 4.0)
    assert tf.train.latest_checkpoint(str(run)) == str(run / "ckpt-5")
    state = tf.train.get_checkpoint_state(str(run))
    assert [os.path.basename(p) for p in state.all_model_checkpoint_paths] == ["ckpt-4", "ckpt-5"]
    assert "Nothing is left over" in shell("gc", run)


def test_what_is_pinned_is_not_pruned(shell, run):
    shell("pin", run / "ckpt-2")
    shell("prune", run, "--max-to-keep", "1", "--yes")  # two of four are not more than half
    assert names(run) == ["ckpt-2", "ckpt-5"]


def test_prune_asks(shell, run):
    text = shell("prune", run, "--max-to-keep", "1", code=2)
    assert "give --yes or --dry-run" in text
    command = ["script", "-qec", f"{SCRIPT} prune {run} --max-to-keep 1", "/dev/null"]
    done = subprocess.run(command, input="n\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "Delete 3 checkpoints" in done.stdout
    assert "Nothing was changed." in done.stdout
    assert len(names(run)) == 4


def test_prune_keeps_good_checkpoints_while_a_damaged_one_counts_as_kept(shell, run):
    """Otherwise only the damaged one would be left."""
    os.truncate(run / "ckpt-5.data-00000-of-00001", 1000)
    before = content(run)
    for more in (["--dry-run"], ["--yes", "--force"]):
        text = shell("prune", run, "--max-to-keep", "1", *more, code=1)
        assert "ckpt-5 is damaged, but would count as a checkpoint that is kept" in text
        assert "has 1000 bytes instead of 80283. Nothing was deleted." in text
        assert content(run) == before
    for file in run.glob("ckpt-5.*"):
        file.unlink()
    shell("prune", run, "--max-to-keep", "1", "--yes", "--force")
    assert names(run) == ["ckpt-4"]


def test_to_delete_more_than_half_needs_another_yes(shell, run):
    text = shell("prune", run, "--max-to-keep", "1", "--yes", code=2)
    assert "3 of 4 checkpoints, more than half" in text
    assert "--yes --force" in text
    command = ["script", "-qec", f"{SCRIPT} prune {run} --max-to-keep 1", "/dev/null"]
    done = subprocess.run(command, input="y\nn\n", capture_output=True, text=True, timeout=300)
    assert "3 of 4, more than half. Delete them?" in done.stdout
    assert len(names(run)) == 4
    shell("prune", run, "--max-to-keep", "1", "--yes", "--force")
    assert names(run) == ["ckpt-5"]


def test_a_policy_alone_keeps_what_the_job_keeps_too(shell, run):
    text = shell("prune", run, "--keep", "EverySteps(40)", "--yes")
    assert "The job's max_to_keep=3 applies, too" in text
    assert "Deleted 1, kept 3." in text
    assert names(run) == ["ckpt-3", "ckpt-4", "ckpt-5"]


def test_a_misspelt_metric_deletes_nothing(shell, run):
    before = content(run)
    rules = ["--max-to-keep", "1", "--keep", "Best(1, 'los') | LastVerified()"]
    text = shell("prune", run, *rules, "--yes", "--force", code=2)
    assert "No checkpoint has the metric 'los'" in text
    assert "there are: loss" in text
    assert content(run) == before


def test_prune_without_rules(shell, run):
    for manifest in run.glob("*.manifest.json"):
        manifest.unlink()
    assert "No manifest" in shell("prune", run, code=2)
    assert "is not a keep policy" in shell("prune", run, "--keep", "All()", code=2)
    assert "0 is not in the range" in shell("prune", run, "--max-to-keep", "0", code=2)


def test_it_says_which_rule_keeps_or_deletes_each(shell, run):
    shell("pin", run / "ckpt-3", "--reason", "submitted")
    rules = ["--max-to-keep", "1", "--keep", "Best(1, 'loss')"]
    found = shell.json("prune", run, *rules, "--dry-run")
    assert found["why"] == {
        "ckpt-2": "number 1 by loss (0.1)",
        "ckpt-3": "pinned (submitted)",
        "ckpt-4": "not the newest, and no policy keeps it",
        "ckpt-5": "the newest",
    }
    lines = shell("prune", run, *rules, "--dry-run").splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == ["kept"] * 2 + [
        "would be deleted",
        "kept",
    ]
    for line, why in zip(lines[1:5], found["why"].values(), strict=True):
        assert line.endswith(why)
    assert lines[5] == "78.7 KiB in 1 checkpoint would be deleted."


@pytest.mark.parametrize("damaged", ["ckpt-4", "ckpt-5"])
def test_with_verify_it_reads_what_it_keeps_before_it_deletes(shell, run, damaged):
    """The sizes are right, but the deleted checkpoints would be the only good ones."""
    flip(run / f"{damaged}.data-00000-of-00001", 5000)
    before = content(run)
    rules = ["--max-to-keep", "2", "--yes"]
    for more in ([], ["--dry-run"]):
        text = shell("prune", run, *rules, "--verify", *more, code=1)
        assert f"{damaged} is damaged, but would count as a checkpoint that is kept" in text
        assert "'values/.ATTRIBUTES/VARIABLE_VALUE'" in text
        assert "Nothing was deleted." in text
        assert content(run) == before
    flip(run / f"{damaged}.data-00000-of-00001", 5000)
    assert shell.json("prune", run, *rules, "--verify", "--dry-run")["verified"] == [
        "ckpt-4",
        "ckpt-5",
    ]
    text = shell("prune", run, *rules, "--verify")
    assert "Every byte of 2 checkpoints that the rules keep was verified." in text
    assert names(run) == ["ckpt-4", "ckpt-5"]


def test_without_verify_it_says_what_was_not_checked(shell, run):
    text = shell("prune", run, "--max-to-keep", "2", "--dry-run")
    assert "only the sizes and indexes were checked" in text
    assert f"`distckpt verify {run} --all` or --verify checks their bytes" in text


def test_a_running_job_is_named_before_a_question(shell, run):
    owned_by(run)
    for command in (["prune", run, "--max-to-keep", "1"], ["rollback", run, "ckpt-4"]):
        assert "A job may be saving to" in shell(*command, code=2)
        assert "A job may be saving to" in shell(*command, "--dry-run")
        assert "Cannot ask" in shell(*command, "--take-over", code=2)


@pytest.mark.parametrize("change", ["unpin", "damage"])
def test_what_changes_while_it_asks_is_not_deleted(shell, run, change):
    """Only what was shown may be deleted, and only while the rest is good."""
    shell("pin", run / "ckpt-2")
    command = f"{SCRIPT} prune {run} --max-to-keep 2"
    with subprocess.Popen(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        seen = ""
        while "[y/N]" not in seen:
            seen += process.stdout.read(1)
        if change == "unpin":
            shell("unpin", run / "ckpt-2")
        else:
            os.truncate(run / DATA, 1000)
        seen = process.communicate("y\n", timeout=300)[0]
    if change == "unpin":
        assert process.returncode == 2
        assert "has changed meanwhile: nothing was deleted" in seen
    else:
        assert process.returncode == 1
        assert "ckpt-5 is damaged" in seen
    assert names(run) == ["ckpt-2", "ckpt-3", "ckpt-4", "ckpt-5"]
