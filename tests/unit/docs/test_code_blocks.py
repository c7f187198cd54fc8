"""Every code block of the documentation is run, or held against what is there.

What each language needs is said in CONTRIBUTING.md, "Code in the documentation".
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import pathlib
import sys

import pytest
import yaml

from ..kit import warm
from . import api, shell
from .fences import BLOCKS, DOCSTRINGS, PAGES, ROOT, Block, inline_code

HERE = pathlib.Path(__file__).parent
SETUPS = HERE / "setups"
# Language: the marks of which a block needs one; "" is no mark.
ALLOWED = {
    "python": {"runs", "signature", "checked"},
    "diff": {"runs", "checked"},
    "sh": {""},
    "yaml": {""},
    "json": {""},
    "mermaid": {""},
    "text": {""},  # what a program prints, a drawing: no code
}
RUNNING = sorted({block.page for block in BLOCKS if block.kind == "runs"})


def of_language(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in languages], ids=str)


def programs(block: Block) -> list[str]:
    """Returns the Python of a block: of a difference, before and after."""
    if block.language == "diff":
        return [api.old_lines(block.code), api.new_lines(block.code)]
    return [block.code]


# --- Every block is of a kind that is checked --------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_checked(block):
    assert block.language in ALLOWED, "give it a language, or `text` if it is no code"
    assert block.kind in ALLOWED[block.language], "CONTRIBUTING.md says how to mark it"


def test_a_block_that_does_not_run_says_why():
    assert [str(b) for b in BLOCKS if b.kind == "checked" and not b.detail] == []


def test_every_setup_is_used():
    used = {block.detail for block in BLOCKS if block.kind == "runs"}
    assert used - {""} == {path.stem for path in SETUPS.glob("*.py")}


# --- Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [b for b in [*BLOCKS, *DOCSTRINGS] if b.language in ("python", "diff")],
    ids=str,
)
def test_python_names_what_is_there(block):
    if block.kind != "signature":
        assert [wrong for code in programs(block) for wrong in api.mistakes(code)] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "signature"], ids=str)
def test_a_signature_is_the_one_of_the_function(block):
    import distckpt

    name, _, arguments = block.code.strip().partition("(")
    shown = ast.parse(f"def shown({arguments}: ...").body[0].args
    real = inspect.signature(getattr(distckpt, name.removeprefix("distckpt.")))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in real.parameters.values()]
    expected = real.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert ast.unparse(shown).replace(" ", "") == str(expected)[1:-1].replace(" ", "")


def played(page: str, folder: pathlib.Path) -> list[str]:
    """Writes what of a page is to be run, each block after its set-up; returns the paths."""
    paths = []
    for block in (b for b in BLOCKS if b.page == page and b.kind == "runs"):
        if block.detail:
            paths.append(str(SETUPS / f"{block.detail}.py"))
        # A file for each, as AutoGraph reads the source; the lines are numbered as in the page.
        path = folder / f"{pathlib.Path(page).name}-{block.line}.py"
        path.write_text("\n" * (block.line - 1) + api.whole(programs(block)[-1]))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("page", RUNNING)
def test_the_examples_run(page, tmp_path):
    """All of a page in one process, in a folder of their own."""
    folder = tmp_path / "run here"
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    done = warm.run(
        [HERE / "play.py", *played(page, tmp_path)],
        cwd=folder,
        env={**environment, "CUDA_VISIBLE_DEVICES": "-1", "PATH": path},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]


# --- The rest ----------------------------------------------------------------------------------


@of_language("sh")
def test_shell_lines_name_programs_options_and_files_that_are_there(block):
    assert shell.mistakes(block.code) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_sentences_have_the_options_that_are_named(page):
    named = [code for code in inline_code(page) if code.startswith("distckpt ")]
    assert [wrong for code in named for wrong in shell.wrong_words(code)] == []


@of_language("yaml")
def test_yaml_can_be_read(block):
    for document in yaml.safe_load_all(block.code):
        words = [*document.get("command", []), *document.get("args", [])]
        if words[:1] == ["distckpt"]:
            assert list(shell.wrong_usage(words[1:])) == []


@of_language("json")
def test_json_can_be_read(block):
    json.loads(block.code)


@of_language("mermaid")
def test_a_diagram_is_of_the_kind_that_the_site_draws(block):
    assert block.code.split()[0] == "sequenceDiagram"  # see docs/sequence_diagrams.py


# --- What is checked would be found -------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("import distckpt\ndistckpt.Manager()", "no distckpt.Manager"),
        ("distckpt.ManagerOptions(durble=True)", "durble"),
        ("from distckpt.policies import EverySecond", "cannot import EverySecond"),
        ("from distckpt.policies import EverySeconds\nEverySeconds()", "EverySeconds()"),
        ("tf.train.Chekpoint()", "no tf.train.Chekpoint"),
        ("if True\n    …", "expected ':'"),
    ],
)
def test_mistakes_in_python_are_found(code, wrong):
    assert any(wrong in mistake for mistake in api.mistakes(code))


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("distckpt lunch", "no command 'lunch'"),
        ("distckpt launch --worker 2 -- python train.py", "--worker"),
        ("distckpt launch --workers two -- python train.py", "two"),
        ("distckpt doctor", "directory is missing"),
        ("cd k8s && srun distckpt launch --workers", "requires an argument"),
        ("PAUSE=1 bash launch/nothing.sh", "no launch/nothing.sh"),
        ("frobnicate --all  # a comment", "unknown program"),
        ("kubectl apply -k k8s/bas", "no k8s/bas"),
    ],
)
def test_mistakes_in_shell_lines_are_found(code, wrong):
    assert any(wrong in mistake for mistake in shell.mistakes(code))


def test_mistakes_in_sentences_are_found():
    assert list(shell.wrong_words("distckpt launch --worker 2")) != []
    assert list(shell.wrong_words("distckpt lunch")) != []
    assert list(shell.wrong_words("distckpt launch --workers 2 -- x --any")) == []
