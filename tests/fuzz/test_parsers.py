"""Hostile files make nothing but our own errors; the command `mutate` tries many more."""

from __future__ import annotations

import ast
import pathlib

import pytest

import distckpt

from .mutate import Broken, feed
from .targets import Target, targets

INPUTS = 4000


@pytest.mark.parametrize("name", targets())
def test_wrong_bytes_are_refused_or_read_and_nothing_else(name):
    tally = feed(targets()[name], INPUTS, seed=1)
    assert tally.tried == INPUTS
    assert tally.refused or not targets()[name].refuses


@pytest.mark.parametrize("name", targets())
def test_right_bytes_are_read(name):
    target = targets()[name]
    superseded = name == "term"  # that is what the file tells
    assert all(target.accepts(seed) != superseded for seed in target.seeds)


@pytest.mark.parametrize("wrong", ["raises", "takes too much"])
def test_a_parser_that_is_wrong_is_noticed(wrong):
    def parse(data):
        if wrong == "raises":
            raise KeyError("format")
        return bytearray(50 << 20)

    with pytest.raises(Broken):
        feed(Target("wrong", parse, (b"12345",)), 100, seed=1)


def test_nothing_that_is_read_is_executed():
    forbidden = {"eval", "exec", "pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle"}
    for path in pathlib.Path(distckpt.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {a.name.partition(".")[0] for a in node.names}
                names.add((getattr(node, "module", None) or "").partition(".")[0])
        assert not names & forbidden, path
