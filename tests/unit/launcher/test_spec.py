from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from distckpt.errors import ConfigurationError
from distckpt.launcher import LaunchSpec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers must be a whole number, 1 or more, got 0"),
        ({"workers": -1}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"workers": True}, "workers"),
        ({"max_restarts": -1}, "max_restarts must be a whole number, 0 or more, got -1"),
        ({"grace": -1}, "grace must be a finite number of seconds"),
        ({"grace": math.nan}, "grace"),
        ({"stop_grace": math.inf}, "stop_grace"),
        ({"stop_grace": "5"}, "stop_grace"),
        ({"command": []}, "no command"),
        ({"command": [""]}, "no command"),
        ({"command": "python train.py"}, "must be a list of arguments"),
        ({"command": ["a", "b\0c"]}, "without NUL"),
        ({"command": ["sleep", 5]}, "made of strings"),
        ({"env": {"": "x"}}, "cannot be an environment variable"),
        ({"env": {"A=B": "x"}}, "cannot be an environment variable"),
        ({"env": {"A": "\0"}}, "cannot be an environment variable"),
        ({"env": {"TF_CONFIG": "{}"}}, "TF_CONFIG is set by the launcher"),
        ({"env": {"DISTCKPT_RESTART": "1"}}, "DISTCKPT_RESTART is set by the launcher"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LaunchSpec(**{"command": ["true"], "workers": 1, **changes})


def test_a_spec_is_frozen_and_keeps_copies() -> None:
    command, env = ["true"], {"A": "1"}
    spec = LaunchSpec(command=command, workers=1, env=env)
    command.append("x")
    env["B"] = "2"
    assert (spec.command, spec.env) == (("true",), {"A": "1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.workers = 2  # type: ignore[misc]
