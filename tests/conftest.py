"""Which tests run where, and when: see CONTRIBUTING.md, "Tests".

The long tests, of tests/long.txt, run with ``--all`` or ``--long``, or if only such are named.
Tests marked ``posix`` are skipped where there is no POSIX, real or made believe (see
`runtime.portable`).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import pathlib
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

from distckpt.runtime import portable

ROOT = pathlib.Path(__file__).parent
LONG = tuple(
    line
    for line in (ROOT / "long.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
_left_out = 0


def _import_tensorflow_faster(folder):
    """Does so in this process, and in all those that it starts."""
    if folder not in sys.path:  # pytest-xdist's workers have it from their environment
        sys.path.insert(0, folder)
        paths = filter(None, [folder, os.environ.get("PYTHONPATH")])
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    importlib.import_module("lean_import")


_import_tensorflow_faster(str(ROOT / "unit" / "kit" / "startup"))


# The time of an example says how busy the machine is, not whether the code is right.
settings.register_profile(
    "any machine",
    parent=settings.default,
    deadline=None,
    suppress_health_check={*settings.default.suppress_health_check, HealthCheck.too_slow},
)
settings.load_profile("any machine")


# After a test that leaves more objects than this, they are collected at once.
_MANY_OBJECTS = 100_000


def pytest_collection_finish():
    """Lets the garbage collector work between tests only, on the main thread.

    When an iterator of tf.data is destroyed, TensorFlow waits for the thread that optimizes it. It
    wakes the thread before it marks it as cancelled (``CancellationManager`` calls its callbacks
    first). If the thread looks too early, as on a busy machine, it sleeps for up to a minute more
    (``Model::OptimizeLoop``). So any thread that collects an iterator may seem to hang.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000_000)


def pytest_runtest_teardown(item, nextitem):
    if nextitem is None or nextitem.path != item.path or gc.get_count()[0] > _MANY_OBJECTS:
        gc.collect()


def pytest_addoption(parser):
    group = parser.getgroup("distckpt")
    group.addoption("--all", action="store_true", help="run the long tests, too")
    group.addoption("--long", action="store_true", help="run the long tests only")
    group.addoption(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="K/N",
        help="with --long: run only the K-th, from 1, of every N of them",
    )


def pytest_configure():
    """Takes signals that are ignored, as they are under nohup or in the background of a script.

    Tests send them to processes that they start, which would inherit that they are ignored.
    """
    handlers = {"SIGINT": signal.default_int_handler, "SIGHUP": lambda *_: None}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for groups, and renames their tests
def pytest_collection_modifyitems(config, items):
    global _left_out
    for item in items:
        if not portable.POSIX and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="there is no such thing on this system"))
        if _name(item).startswith(LONG):
            item.add_marker("long")
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)
    _refuse_unknown(config, items)
    if config.getoption("--all") or _are_named(config, items):
        return
    wanted = config.getoption("--long")
    chosen = [item for item in items if bool(item.get_closest_marker("long")) == wanted]
    _left_out = 0 if wanted else len(items) - len(chosen)
    if wanted:
        number, parts = config.getoption("--part")
        chosen = chosen[number - 1 :: parts]
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def pytest_terminal_summary(terminalreporter):
    number, parts = terminalreporter.config.getoption("--part")
    if parts > 1:
        terminalreporter.write_line(f"This was part {number} of {parts} of the long tests.")
    if _left_out:
        terminalreporter.write_line(
            f"{_left_out} long tests were left out. `bash tests/run.sh --all` runs them, too; "
            "`bash tests/run.sh --long` runs them alone."
        )


def _part(text):
    """Returns K and N of "K/N"."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with 1 <= K <= N, such as 1/3")
    return int(number), int(parts)


# Tests that share nothing and take long: each may run where there is room.
_ALONE = ("simulation", "fuzz", "reliability", "pods")


def _group(item):
    """Returns which tests one process runs, one after the other; "" for a test alone.

    Those that share warm workers, which take long to start; the daily ones that start workers of
    their own, as more of these at a time would have to share the processors; the rest by the file,
    as the tests of one file share what is made and imported for it.
    """
    file = item.path.relative_to(ROOT)
    if item.get_closest_marker("cluster"):
        if "pools" in item.fixturenames:
            return "warm"
        return str(file) if item.get_closest_marker("long") else "cold"
    if "rendered" in item.fixturenames:
        return "rendered"
    return "" if file.parts[0] in _ALONE else str(file)


def _turn(item):
    """What takes longest begins first, so that no process is left with it at the end."""
    first = ("cold", "warm")
    marker = item.get_closest_marker("xdist_group")
    group = marker.args[0] if marker else ""
    if group in first:
        return first.index(group)
    return len(first) if not group else len(first) + 1


def _name(item):
    """Returns the name of a test as tests/long.txt has it."""
    return item.nodeid.removeprefix("tests/")


def _are_named(config, items):
    """Returns whether nothing but long tests was asked for, by file or by name."""
    named = [argument for argument in config.args if ".py" in argument]
    return bool(named) and all(item.get_closest_marker("long") for item in items)


def _refuse_unknown(config, items):
    """Makes sure, when all tests are collected, that each line of tests/long.txt is about one."""
    if config.args == config.getini("testpaths") and not config.getoption("ignore"):
        names = [_name(item) for item in items]
        unknown = [line for line in LONG if not any(name.startswith(line) for name in names)]
        if unknown:
            raise pytest.UsageError(f"tests/long.txt names no test with: {', '.join(unknown)}")
