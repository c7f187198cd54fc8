"""Events are plain, frozen data."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distckpt import events

KINDS = [k for k in vars(events).values() if isinstance(k, type) and issubclass(k, events.Event)]
COMMON = {"time": 1.5, "worker": 1, "workers": 3, "directory": "/run"}
VALUES = {"names": ("ckpt-1",), "culprit": None, "seconds_left": None, "metrics": {"loss": 0.5}}


def example(kind):
    """Returns an event of the class `kind`."""
    fields = [f.name for f in dataclasses.fields(kind) if f.name not in COMMON]
    return kind(**COMMON, **{name: VALUES.get(name, 7) for name in fields})


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_frozen_and_turns_to_json(kind):
    event = example(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.worker = 2
    plain = json.loads(json.dumps(event.to_json()))
    assert plain.pop("event") == kind.__name__
    assert plain.keys() == {f.name for f in dataclasses.fields(kind)}
    assert plain["workers"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_given_by_name(kind):
    with pytest.raises(TypeError):
        kind(1.5, 1, 3, "/run")


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_says_what_it_is_and_who_tells_it(kind):
    assert kind.__doc__
    if kind is not events.Event:
        assert "very worker" in kind.__doc__ or "chief" in kind.__doc__ or "This" in kind.__doc__
