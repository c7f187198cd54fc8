"""The hook of MkDocs that draws the diagrams in the pages."""

from __future__ import annotations

import importlib.util
import pathlib
import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("pymdownx", reason="needs MkDocs: launch/setup_venv.sh docs")

HOOK = pathlib.Path(__file__).resolve().parents[2] / "docs" / "sequence_diagrams.py"
HEAD = "sequenceDiagram\nparticipant A as chief\nparticipant B as <worker>\n"


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("sequence_diagrams", HOOK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_that_is_said_is_in_the_picture(hook):
    lines = "loop for each\nA->>B: verify & report\nNote over A,B: both\nend\nB->>A: the outcome"
    picture = ET.fromstring(hook.draw(HEAD + lines))
    said = ["".join(text.itertext()) for text in picture.iterfind(".//{*}text")]
    assert said == ["chief", "<worker>", "loop for each", "verify & report", "both", "the outcome"]
    assert [shape.get("class") for shape in picture.iterfind(".//{*}rect")].count("frame") == 1


def test_long_texts_have_several_lines_and_nothing_is_outside_the_picture(hook):
    picture = ET.fromstring(hook.draw(HEAD + "A->>B: " + "word " * 40))
    heights = [float(text.get("y")) for text in picture.iterfind(".//{*}text")]
    assert len(heights) > 4
    assert max(heights) < float(picture.get("height"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("flowchart LR", "Only sequence diagrams"),
        (HEAD + "A-->>B: a dashed arrow", "not understood: A-->>B"),
        (HEAD + "A->>C: to nobody", "no participant C"),
        (HEAD + "loop for ever", "no end"),
        (HEAD + "end", "not understood: end"),
    ],
)
def test_what_cannot_be_drawn_is_refused(hook, source, message):
    with pytest.raises(ValueError, match=message):
        hook.draw(source)
