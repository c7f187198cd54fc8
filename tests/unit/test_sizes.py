"""No module is longer than 400 lines, no function longer than 50 without its docstring."""

from __future__ import annotations

import ast
import pathlib

import pytest

import distckpt

TESTS = pathlib.Path(__file__).parents[1]
FOLDERS = [pathlib.Path(distckpt.__file__).parent, TESTS, TESTS.parent / "launch"]
MODULE, FUNCTION = 400, 50


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_modules_and_functions_are_short(folder):
    modules = list(folder.rglob("*.py"))
    assert modules
    assert not [text for module in modules for text in _too_long(module)]


def _too_long(module):
    source = module.read_text()
    if (lines := len(source.splitlines())) > MODULE:
        yield f"{module}: {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
            if lines > FUNCTION:
                yield f"{module}:{node.lineno}: {node.name}() has {lines} lines"


def _docstring_lines(function):
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return function.body[0].end_lineno - function.body[0].lineno + 1


def test_what_is_too_long_is_found(tmp_path):
    module = tmp_path / "long.py"
    module.write_text('def f():\n    """\n    Says\n    it.\n    """\n' + "    g()\n" * 50)
    assert list(_too_long(module)) == [f"{module}:1: f() has 51 lines"]
    module.write_text("g()\n" * 401)
    assert list(_too_long(module)) == [f"{module}: 401 lines"]
