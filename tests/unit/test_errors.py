from __future__ import annotations

import inspect
import json
import re

import pytest

from distckpt import errors
from distckpt.errors import DistckptError, Failure, SaveFailedError

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, BaseException) and cls.__module__ == errors.__name__
]


def drawn():
    """Returns {class: (parent, other base)} as the tree in the module's docstring shows them."""
    tree, stack = {}, []
    for line in errors.__doc__.split("\n"):
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)(?: \((\w+)\))?(?:\s|$)", line)
        if not match:
            continue
        depth = len(match[1]) // 4
        stack[depth:] = [match[2]]
        tree[match[2]] = (stack[depth - 1] if depth else None, match[3])
    return tree


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    found = {}
    for cls in CLASSES:
        ours = [b.__name__ for b in cls.__bases__ if issubclass(b, DistckptError)]
        others = [b.__name__ for b in cls.__bases__ if not issubclass(b, DistckptError)]
        foreign = [name for name in others if name != "Exception"]
        found[cls.__name__] = (ours[0] if ours else None, foreign[0] if foreign else None)
    assert drawn() == found


def test_every_line_of_the_tree_says_what_it_means():
    for name in drawn():
        if name == "DistckptError":
            continue
        line = next(li for li in errors.__doc__.split("\n") if re.search(rf"── {name}\b", li))
        assert re.search(r"\s{2,}\w.{15,}", line.split(name)[1]), line


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_what_to_think_of_it(cls):
    assert cls.__doc__
    assert cls.__doc__[0].isupper()
    assert cls.__doc__.rstrip().endswith(".")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_arrives_on_another_worker_as_it_was(cls):
    def raised():
        try:
            raise cls("what happened\nand what to do")
        except cls as error:
            return error

    sent = Failure.from_exception(raised(), 3)
    arrived = Failure.from_json(sent.to_json())
    assert arrived == sent
    assert arrived.worker == 3
    assert "raised()" in arrived.trace or "in raised" in arrived.trace
    error = arrived.to_error()
    assert type(error) is cls
    assert str(error) == "what happened\nand what to do"


def test_who_has_taken_over_travels_with_the_error():
    error = errors.SupersededError("another one is the chief now")
    assert error.successor == ""
    error.successor = "host-a (pid 7, term 2)"
    sent = Failure.from_exception(error, 0).to_json()
    arrived = Failure.from_json(sent).to_error()
    assert isinstance(arrived, errors.SupersededError)
    assert arrived.successor == error.successor
    assert "successor" not in vars(Failure.from_exception(SaveFailedError("x")).to_error())


@pytest.mark.parametrize(
    "error",
    [RuntimeError("boom"), OSError(28, "No space left on device"), KeyError("k"), ValueError()],
    ids=repr,
)
def test_a_foreign_error_becomes_a_failed_save_that_names_it(error):
    arrived = Failure.from_exception(error).to_error()
    assert type(arrived) is SaveFailedError
    assert str(arrived) == f"{type(error).__name__}: {error}".removesuffix(": ")


def test_a_users_subclass_is_not_looked_up_by_its_name():
    class ConfigurationError(errors.ConfigurationError):
        pass

    class Mine(errors.RestoreError):
        pass

    assert type(Failure.from_exception(Mine("x")).to_error()) is SaveFailedError
    assert type(Failure.from_exception(ConfigurationError("x")).to_error()) is (
        errors.ConfigurationError
    )


def test_a_class_that_this_version_does_not_know_is_a_failed_save():
    assert type(Failure("FutureError", "x").to_error()) is SaveFailedError


@pytest.mark.parametrize("data", [{"kind": "RestoreError", "message": "x"}])
def test_an_older_worker_may_send_less(data):
    assert Failure.from_json(data) == Failure("RestoreError", "x", None, "")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("ConfigurationError", ValueError), ("DeadlineExceededError", TimeoutError)],
)
def test_whoever_catches_the_builtin_catches_ours(name, builtin):
    assert issubclass(getattr(errors, name), builtin)


def test_all_can_be_caught_at_once():
    assert all(issubclass(cls, DistckptError) for cls in CLASSES)
    assert len(CLASSES) >= 16


def test_the_traceback_of_another_worker_is_a_note_of_the_error():
    def deep_down():
        raise ValueError("no such layer")

    try:
        deep_down()
    except ValueError as error:
        sent = Failure.from_exception(error, 2).to_json()
    failure = Failure.from_json(sent)
    elsewhere, there = failure.to_error(1), failure.to_error(2)
    assert elsewhere.worker == there.worker == 2
    assert "in deep_down" in elsewhere.trace
    if hasattr(elsewhere, "add_note"):
        (note,) = elsewhere.__notes__
        assert note.startswith("On worker 2:\nTraceback")
        assert note.endswith("ValueError: no such layer")
        assert not hasattr(there, "__notes__")  # it is raised from its cause


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/run/a"), "No such file or directory"),
        (OSError("the disk is gone"), "the disk is gone"),
        (KeyError("version"), "'version' is missing"),
        (json.JSONDecodeError("Expecting value", "\n{", 1), "not JSON at line 2, column 1"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "it is not UTF-8 text"),
        (TypeError("'int' object is not subscriptable"), "a value has the wrong type"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (OverflowError("int too large to convert to float"), "a number is too large"),
        (ValueError("7 is negative."), "7 is negative"),
    ],
)
def test_a_reason_is_said_in_words(error, text):
    assert errors.reason(error) == text


def test_an_explanation_names_the_file_once():
    assert errors.explain(OSError(13, "Permission denied", "/run/a")) == "/run/a: Permission denied"
    of_tensorflow = OSError(2, "/run/a; No such file or directory", "/run/a")
    assert errors.explain(of_tensorflow) == "/run/a; No such file or directory"
    assert errors.explain(OSError("it is gone")) == "it is gone"
