"""The documentation says what is there: links, names of tests, options, errors, examples."""

from __future__ import annotations

import ast
import dataclasses
import functools
import pathlib
import re

import msgspec
import pytest

import distckpt
from distckpt import errors
from distckpt.core import manifest as manifests
from distckpt.core import manifest_json
from distckpt.options import ManagerOptions

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
SCENARIOS = TESTS / "scenarios" / "testdata"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEST_NAME = re.compile(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`")
SNAKE = re.compile(r"`([a-z][a-z0-9_]*)`")


def text(page):
    return (ROOT / page).read_text()


def prose(page):
    """Returns the page without its code blocks."""
    return FENCE.sub("", text(page))


def section(page, title):
    """Returns what stands under the heading `title`, up to the next one of its level."""
    level, rest = re.search(
        rf"^(#+) {re.escape(title)}\n(.*)", text(page), re.MULTILINE | re.DOTALL
    ).groups()
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_column(table):
    """Returns the words in backquotes of the first column of all tables in `table`."""
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {word for cell in cells for word in SNAKE.findall(cell)}


def anchors(page):
    """Returns the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", h.lower()).strip() for h in headings]
    return {re.sub(r" +", "-", h) for h in plain}


def blocks(page, language):
    """Returns the code of each block; `docs/test_code_blocks.py` looks into them."""
    return [code for kind, code in FENCE.findall(text(page)) if kind == language]


@functools.cache
def functions(path):
    tree = ast.parse(path.read_text())
    return {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


# --- Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", NAMES)
def test_every_relative_link_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT)), f"{page}: {link}"


def test_every_page_of_the_documentation_can_be_reached_from_its_index():
    linked = {link.partition("#")[0] for link in LINK.findall(text("docs/index.md"))}
    pages = {str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")}
    assert pages - linked == {"index.md"}


@pytest.mark.parametrize("name", distckpt.__all__)
def test_every_public_name_is_in_the_generated_reference(name):
    """A page in docs/reference has a line such as "::: distckpt.CheckpointManager"."""
    pages = "\n".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
    assert re.search(rf"^::: distckpt\.{name}$", pages, re.MULTILINE)


# --- The failure table ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", NAMES)
def test_every_test_that_is_named_exists(page):
    for file, name in TEST_NAME.findall(text(page)):
        assert name in functions(TESTS / file), f"{page} names {file}::{name}"


def failures():
    return [row for row in section("docs/protocol.md", "Failures").splitlines() if row[:1] == "|"]


def proofs(row):
    """Returns the scenarios and the tests that the last cell of a row names."""
    cell = row.split("|")[-2]
    return SNAKE.findall(cell) + [name for _, name in TEST_NAME.findall(cell)]


def test_every_row_of_the_failure_table_names_its_proof():
    rows = [r for r in failures() if not r.startswith(("| What,", "|---"))]
    assert len(rows) > 40
    for row in rows:
        found = proofs(row)
        assert found, row
        for name in found:
            assert name.startswith("test_") or (SCENARIOS / f"{name}.txt").exists(), row


@pytest.mark.parametrize("scenario", sorted(p.stem for p in SCENARIOS.glob("*.txt")))
def test_the_failure_table_says_what_the_workers_see_in_the_scenario(scenario):
    played = (SCENARIOS / f"{scenario}.txt").read_text()
    raised = set(re.findall(r"^(?:chief|worker \d+): raise (\w+)", played, re.MULTILINE))
    seen = [row.split("|")[2] for row in failures() if scenario in proofs(row)]
    if not raised and "return the path" in played and not seen:
        return  # nothing goes wrong
    assert len(seen) == 1, f"{scenario} stands in {len(seen)} rows"
    assert set(re.findall(r"`(\w+Error)`", seen[0])) == raised
    assert ("path" in seen[0]) == ("return the path" in played)


def test_every_scenario_is_in_the_page_about_the_protocol():
    named = set(SNAKE.findall(prose("docs/protocol.md")))
    assert {path.stem for path in SCENARIOS.glob("*.txt")} - named == set()


@pytest.mark.parametrize(
    "file",
    [
        "multiprocess/test_errors.py",
        "multiprocess/test_kills.py",
        "unit/saving/test_crash_points.py",
        "unit/ownership/test_stale_chief.py",
    ],
)
def test_every_failure_that_is_tried_is_in_the_table(file):
    named = {name for row in failures() for name in proofs(row)}
    tried = {n for n in functions(TESTS / file) if n.startswith("test_")}
    assert tried - named == set()


# --- Options and errors ---------------------------------------------------------------------------


def arguments(path, owner, method):
    """Returns {name: default as source, or None} of the arguments of a method."""
    tree = ast.parse((ROOT / path).read_text())
    of = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == owner)
    function = next(n for n in of.body if isinstance(n, ast.FunctionDef) and n.name == method)
    names = function.args.args[1:]
    defaults = [None] * (len(names) - len(function.args.defaults)) + function.args.defaults
    pairs = [*zip(names, defaults), *zip(function.args.kwonlyargs, function.args.kw_defaults)]  # noqa: B905
    return {a.arg: ast.unparse(d) if d else None for a, d in pairs}


@pytest.mark.parametrize(
    ("page", "title", "path", "owner", "methods"),
    [
        (
            "docs/options.md",
            "`CheckpointManager`",
            "distckpt/manager/checkpoint_manager.py",
            "CheckpointManager",
            ["__init__", "save"],
        ),
        (
            "docs/options.md",
            "`SharedDirectory`",
            "distckpt/coordination/shared_directory.py",
            "SharedDirectory",
            ["__init__"],
        ),
        (
            "docs/input.md",
            "Arguments of `WorkerInput`",
            "distckpt/data/worker_input.py",
            "WorkerInput",
            ["__init__"],
        ),
        (
            "docs/input.md",
            "Arguments of `IndexedInput`",
            "distckpt/data/indexed_input.py",
            "IndexedInput",
            ["__init__"],
        ),
    ],
)
def test_every_argument_is_documented_with_its_default(page, title, path, owner, methods):
    page = section(page, title)
    expected = {}
    for method in methods:
        expected |= arguments(path, owner, method)
    assert first_column(page) == expected.keys()
    for name, default in expected.items():
        if default is not None:
            assert f"{name}={default}".replace("'", '"') in page.replace("'", '"')


def test_every_option_of_the_manager_is_documented_with_its_default():
    page = section("docs/options.md", "`ManagerOptions`")
    fields = {f.name: f.default for f in dataclasses.fields(ManagerOptions)}
    assert first_column(page) == fields.keys()
    for name, default in fields.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` "))
        assert str(default) in row.split("|")[2]


def test_every_checkpoint_option_of_tensorflow_is_documented():
    import tensorflow as tf

    page = section("docs/options.md", "`tf.train.CheckpointOptions`")
    assert first_column(page) == set(tf.train.CheckpointOptions.__slots__)


def test_every_error_is_documented_with_what_to_do():
    page = section("docs/howto.md", "Know what to do about an error")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    documented = {re.findall(r"`(\w+)`", cells[1])[0]: cells for cells in rows}
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DistckptError)
    }
    assert documented.keys() == raised - {"DistckptError"}
    assert "`DistckptError`" in page
    for name, cells in documented.items():
        assert all(cell.strip() for cell in cells[2:4]), name


# --- Examples -------------------------------------------------------------------------------------


def test_the_manifest_shown_is_one_and_all_its_fields_are_documented():
    page = "docs/manifest.md"
    (example,) = blocks(page, "json")
    shown = manifest_json.parse(example.encode())
    assert manifest_json.render(shown).decode() == example
    documented = first_column(text(page))
    # A row has no names; these stand for it.
    for record in (
        manifests.Manifest,
        manifests.FileRecord,
        manifests.IndexRecord,
        manifests.PieceRecord,
        manifests.EntryRecord,
        manifests.WorkerRecord,
        manifests.Replaced,
        manifests.Pointer,
        manifests.StateRecord,
    ):
        if issubclass(record, msgspec.Struct):
            fields = set(record.__struct_fields__)
        else:
            fields = {f.name for f in dataclasses.fields(record) if f.compare}  # in the file
        assert fields - documented == set()


def test_the_files_that_the_architecture_names_are_there():
    found = re.findall(r"`([a-z_0-9]+/[a-z_0-9/]+\.py)`", text("docs/architecture.md"))
    assert len(found) > 20
    for path in found:
        assert (ROOT / "distckpt" / path).exists() or (ROOT / path).exists(), path


def test_the_architecture_names_every_package():
    named = first_column(text("docs/architecture.md"))
    packages = {path.parent.name for path in (ROOT / "distckpt").glob("*/__init__.py")}
    assert packages - named == {"testing"}
