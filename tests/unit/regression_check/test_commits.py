"""Which commits are compared, and their trees."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits on main, and one on a branch, which is checked out."""
    root = tmp_path / "repository"
    (root / "distckpt").mkdir(parents=True)
    git(root, "init", "--initial-branch=main")
    for text in ("one", "two", "three"):
        if text == "three":
            git(root, "checkout", "-b", "branch")
        module(root).write_text(f"text = {text!r}\n")
        git(root, "add", ".")
        git(root, "commit", "-m", text)
    return root


def git(root, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


def module(root):
    return root / "distckpt" / "__init__.py"


@pytest.mark.parametrize(
    ("commit", "base"), [("HEAD", "two"), (".", "two"), ("main", "one"), ("main~1", "two")]
)
def test_a_commit_is_compared_with_main_and_main_with_the_one_before(repository, commit, base):
    from regression import trees

    found = trees.base_of(repository, trees.find(repository, commit))
    assert found.title.endswith(f" {base}")


@pytest.mark.parametrize(("commit", "text"), [("HEAD", "three"), ("main", "two"), (".", "four")])
def test_a_tree_is_that_of_the_commit_or_what_is_there_now(repository, tmp_path, commit, text):
    from regression import trees

    module(repository).write_text("text = 'four'\n")
    found = trees.find(repository, commit)
    trees.check_out(repository, found, tmp_path / "tree")
    assert module(tmp_path / "tree").read_text() == f"text = {text!r}\n"
    assert list((tmp_path / "tree" / "distckpt" / "__pycache__").iterdir())


@pytest.mark.parametrize("name", ["nothing", "--all", ""])
def test_what_is_no_commit_is_refused(repository, name):
    from regression import trees

    with pytest.raises(trees.UnknownCommitError):
        trees.find(repository, name)


def test_an_unknown_commit_leaves_nothing_behind(repository, tmp_path, monkeypatch, capsys):
    import compare_commits

    scratch = tmp_path / "scratch"
    monkeypatch.setattr(compare_commits, "ROOT", repository)
    monkeypatch.setattr(sys, "argv", ["compare_commits.py", "x", "--directory", str(scratch)])
    monkeypatch.setattr(compare_commits.signal, "signal", lambda *_: None)
    assert compare_commits.main() == 2
    assert "x" in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("words", [["--allow", "x"], ["--allow", "-1"], ["--rounds", "0"]])
def test_wrong_usage_ends_with_2(monkeypatch, words):
    import compare_commits

    monkeypatch.setattr(sys, "argv", ["compare_commits.py", *words])
    with pytest.raises(SystemExit) as ended:
        compare_commits._parse()
    assert ended.value.code == 2
