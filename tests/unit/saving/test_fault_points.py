from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distckpt.errors import ConfigurationError
from distckpt.saving import fault_points
from distckpt.saving.fault_points import FaultPoint

TEXT = "worker=1 step=Write moment=before save=2 fault=raise"


@pytest.fixture(autouse=True)
def harmless():
    yield
    fault_points.arm(None)


def test_a_text_is_understood_and_given_back():
    point = FaultPoint.parse(TEXT)
    assert point == FaultPoint(1, "Write", "before", 2, "raise")
    assert str(point) == TEXT


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "kill",
        TEXT.replace("Write", "write"),
        TEXT.replace("raise", "rise"),
        TEXT.replace("before", "during"),
        TEXT.replace("=1", "=one"),
        TEXT + " more=1",
    ],
)
def test_a_wrong_text_says_what_is_right(wrong):
    with pytest.raises(ConfigurationError, match=r"is not like|is none of"):
        FaultPoint.parse(wrong)


def test_it_strikes_there_and_once():
    fault_points.arm(FaultPoint.parse(TEXT))
    fault_points.reached(1, "ckpt-1", "Write", "before")
    fault_points.reached(0, "ckpt-2", "Write", "before")
    fault_points.reached(1, "ckpt-2", "Write", "after")
    fault_points.reached(1, "ckpt-2", "Merge", "before")
    with pytest.raises(fault_points.Struck, match="step=Write"):
        fault_points.reached(1, "ckpt-2", "Write", "before")
    fault_points.reached(1, "ckpt-2", "Write", "before")


def test_nothing_strikes_unless_it_is_asked_for():
    assert fault_points.VARIABLE not in os.environ
    for step in fault_points.STEPS:
        for moment in fault_points.MOMENTS:
            fault_points.reached(0, "ckpt-1", step, moment)


@pytest.mark.posix
@pytest.mark.parametrize(("fault", "code"), [("kill", -9), ("exit", 7)])
def test_the_variable_is_read_by_a_real_process(fault, code):
    program = (
        "from distckpt.saving import fault_points\n"
        "fault_points.reached(0, 'ckpt-1', 'Commit', 'after')\n"
        "raise SystemExit(1)\n"
    )
    text = f"worker=0 step=Commit moment=after save=1 fault={fault}"
    env = {**os.environ, fault_points.VARIABLE: text}
    assert subprocess.run([sys.executable, "-c", program], env=env).returncode == code
