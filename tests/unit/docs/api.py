"""Whether Python that is only shown would find what it names: modules, names, keywords."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

_LEFT_OUT = re.compile(r"^( *)…(?: .*)?$", re.MULTILINE)
_KNOWN = ("distckpt", "tf")


def new_lines(diff: str) -> str:
    """Returns the program after a change: the lines with "+", and those without a sign."""
    return "".join(f"{line[1:]}\n" for line in diff.splitlines() if not line.startswith("-"))


def old_lines(diff: str) -> str:
    """Returns the program before a change."""
    return "".join(f"{line[1:]}\n" for line in diff.splitlines() if not line.startswith("+"))


def whole(code: str) -> str:
    """Returns `code` with a statement in place of each line "…", which stands for others."""
    return _LEFT_OUT.sub(r"\1pass", code)


def mistakes(code: str) -> list[str]:
    """Returns what is wrong: syntax, names that are not there, keywords that nobody takes."""
    try:
        tree = ast.parse(whole(code))
    except SyntaxError as error:
        return [f"{error.msg}: {error.text}"]
    names = dict(_imported(tree))
    found = [f"cannot import {name}" for name, value in names.items() if value is _MISSING]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _resolve(node, names) is _MISSING:
            found.append(f"there is no {ast.unparse(node)}")
        if isinstance(node, ast.Call):
            found += _bad_keywords(node, names)
    return found


class _Missing:
    """Stands for what is not there."""


_MISSING = _Missing()
_UNKNOWN = object()  # a variable, or of a package that is none of ours to judge


def _imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yields the names that mean something of distckpt or TensorFlow, imported or taken for it."""
    yield "distckpt", importlib.import_module("distckpt")
    yield "tf", importlib.import_module("tensorflow")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "distckpt":
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                yield alias.asname or alias.name, getattr(module, alias.name, _MISSING)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "distckpt":
                    importlib.import_module(alias.name)


def _resolve(node: ast.AST, names: dict[str, Any]) -> Any:
    """Returns what an expression such as ``distckpt.policies.EverySteps`` is."""
    if isinstance(node, ast.Name):
        return names.get(node.id, _UNKNOWN)
    if not isinstance(node, ast.Attribute):
        return _UNKNOWN
    owner = _resolve(node.value, names)
    if owner is _UNKNOWN or isinstance(owner, _Missing):
        return _UNKNOWN  # reported once, where it begins
    return getattr(owner, node.attr, _MISSING)


def _bad_keywords(call: ast.Call, names: dict[str, Any]) -> list[str]:
    """Returns complaints about a call of ours whose arguments do not fit."""
    called = _resolve(call.func, names)
    if not str(getattr(called, "__module__", "")).startswith("distckpt"):
        return []
    if any(isinstance(a, ast.Starred) for a in call.args) or any(
        k.arg is None for k in call.keywords
    ):
        return []
    try:
        keywords = {str(k.arg): None for k in call.keywords}
        inspect.signature(called).bind(*call.args, **keywords)
    except TypeError as error:
        return [f"{ast.unparse(call.func)}(): {error}"]
    return []
