"""The benchmark's arithmetic, its tables and plots, the writer of its page. Nothing is timed."""

from __future__ import annotations

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Lets the benchmarks be imported as when they are run."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {
            "perf",
            "summary",
            "disk",
            "report",
            "performance",
            "command_line",
        }:
            del sys.modules[name]


def sample(stopped, committed=1.0):
    times = {"returned": stopped, "stopped": stopped, "committed": committed}
    return {**times, "bytes": 2**20, "settled": True}


def stop_result(rounds, title="1 GiB in 32 variables"):
    return {
        "state": title,
        "workers": 1,
        "first": rounds[0],
        "second": {},
        "rounds": rounds,
        "changed": {"distckpt-async": sample(0.5)},
        "failed": {"orbax": "cannot be installed: no wheel"},
    }


def pace_sample(during):
    return {
        "stopped": 0.5,
        "committed": 1.0,
        "before": [1.0, 1.0],
        "after": [1.5],
        "during": during,
    }


def everything():
    rounds = [
        {"distckpt-async": sample(0.001), "distckpt": sample(0.2, 0.2), "tensorflow": sample(0.3)},
        {"distckpt-async": sample(0.002), "distckpt": sample(0.2, 0.2), "tensorflow": sample(0.2)},
        {"distckpt-async": sample(0.004), "distckpt": sample(0.2, 0.2), "tensorflow": sample(0.8)},
    ]
    paces = {"state": "x", "rounds": [{"distckpt-async": pace_sample([4.0])}], "failed": {}}
    peak = {"level": 100.0, "peak": 300.0, "state": 800.0}
    memory = {"state": "x", "way": "distckpt-async", "workers": 4, "peaks": [peak], "failed": {}}
    leak = {"state": "x", "way": "distckpt-async", "resident": [5, 7, 9, 11, 13], "failed": {}}
    restore = {"state": "x", "rounds": [{"distckpt": 0.3, "tensorflow": 0.1}], "failed": {}}
    return {
        "machine": {"cores": "2"},
        "settings": {"rounds": 3},
        "sections": {
            "stop": [stop_result(rounds), stop_result(rounds, "10,000 variables of 10 floats")],
            "pace": [paces, paces],
            "memory": [memory],
            "leak": [{**leak, "bytes": 2**20}],
            "restore": [restore],
            "scale": [],
        },
    }


# --- Arithmetic -----------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round():
    from perf import figures

    rounds = everything()["sections"]["stop"][0]["rounds"]
    of = figures.seconds("stopped")
    found = figures.ratio(rounds, "tensorflow", "distckpt-async", of)
    # The ratio of the medians would be 150.
    assert (found.least, found.median, found.most) == pytest.approx((100, 200, 300))
    with pytest.raises(ValueError, match="never measured in one round"):
        figures.ratio(rounds, "torch", "distckpt-async", of)


def test_a_round_in_which_one_of_the_two_is_missing_does_not_count():
    from perf import figures

    rounds = [{"a": sample(4.0), "b": sample(2.0)}, {"a": sample(9.0)}]
    assert figures.ratio(rounds, "a", "b", figures.seconds("stopped")).most == 2.0


def test_steps_are_compared_with_the_median_of_those_without_a_save():
    from perf import figures

    taken = pace_sample([1.0, 3.0])
    assert figures.usual_step(taken) == 1.0
    assert figures.slowest_step(taken) == 3.0
    assert figures.slowest_without(taken) == 1.5
    assert figures.lost(taken) == 0.5 + 2.0


def test_memory_is_told_in_shares_of_a_worker():
    from perf import figures

    assert figures.memory_shares(everything()["sections"]["memory"][0]) == [1.0]


def test_the_slope_ignores_the_beginning_and_single_jumps():
    from perf.memory import slope

    flat = [1000, 1000] + [7] * 8
    assert slope(flat) == 0
    assert slope([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]) == 1
    assert slope([*flat[:9], 10**6]) == 0


def test_expectations_are_judged_by_the_median():
    from perf import figures

    results = everything()["sections"]
    verdicts = {found.name: found.verdict for found in figures.findings(results)}
    title = "1 GiB in 32 variables: "
    assert verdicts[title + "training stopped"] == "met"  # 2 ms
    assert verdicts[title + "blocking save ÷ asynchronous, stopped"] == "met"  # 100
    assert verdicts["x: slowest step during a save ÷ usual step"] == "not met"  # 4
    assert verdicts["x, 4 workers, asynchronous: memory ÷ own share"] == "met"  # 1.0
    assert verdicts["5 saves, memory given back at once: growth of it, each"] == "met"
    results["stop"][0]["rounds"] = [{"distckpt-async": sample(0.006)}]
    assert next(f.verdict for f in figures.findings({"stop": results["stop"]})) == "not met"


# --- The page -------------------------------------------------------------------------------------


def test_only_what_is_between_the_markers_is_replaced():
    from perf.pages import replaced

    text = "a\n<!-- begin:x -->\nold\n<!-- end:x -->\nb\n<!-- begin:y -->\n<!-- end:y -->\n"
    new = replaced(text, "x", r"new \1")
    assert new == text.replace("old", r"new \1")
    assert replaced(new, "x", "old") == text


@pytest.mark.parametrize("text", ["", "<!-- begin:x -->", 2 * "<!-- begin:x --><!-- end:x -->"])
def test_a_page_without_exactly_one_pair_of_markers_is_refused(text):
    from perf.pages import replaced

    with pytest.raises(ValueError, match="one pair of markers"):
        replaced(text, "x", "new")


def test_the_page_has_a_place_for_every_part_and_every_plot(tmp_path):
    from perf import pages

    page, plots = tmp_path / "performance.md", tmp_path / "performance"
    original = (ROOT / "docs" / "performance.md").read_text()
    first_page = (ROOT / "docs" / "index.md").read_text()
    page.write_text(original)
    pages.write(everything(), page, plots)
    written = page.read_text()
    assert "not measured: cannot be installed: no wheel" in written
    assert "| 200 (100–300) |" in written
    for picture in plots.iterdir():
        ElementTree.parse(picture)
        shown = first_page if picture.stem == "headline" else original
        assert f"(performance/{picture.name})" in shown
    assert {p.stem for p in plots.iterdir()} == {"headline", "stop", "pace", "memory", "restore"}
    pages.write(everything(), page, plots)
    assert page.read_text() == written


def test_every_section_has_a_table_and_a_place_on_the_page():
    import performance
    from perf import tables

    assert performance.SECTIONS.keys() == tables.TABLES.keys()
    original = (ROOT / "docs" / "performance.md").read_text()
    for name in [*performance.SECTIONS, "machine", "expectations"]:
        assert f"<!-- begin:{name} -->" in original


def test_what_was_written_as_json_gives_the_same_text():
    from perf import pages

    results = everything()
    assert pages.as_text(json.loads(json.dumps(results))) == pages.as_text(results)


# --- The environments -----------------------------------------------------------------------------


def test_an_environment_is_made_once_and_again_when_what_it_needs_changes(tmp_path, monkeypatch):
    from perf import environments

    made = []

    def make(library, folder):
        made.append(library)
        folder.mkdir(exist_ok=True)

    monkeypatch.setattr(environments, "_make", make)
    assert environments.python_of("tensorflow", tmp_path) == sys.executable
    for _ in range(2):
        assert environments.python_of("torch", tmp_path) == str(tmp_path / "torch/bin/python")
    assert made == ["torch"]
    monkeypatch.setitem(environments.REQUIREMENTS, "torch", ("torch==0",))
    environments.python_of("torch", tmp_path)
    assert made == ["torch", "torch"]


# --- Rounds ---------------------------------------------------------------------------------------


def test_a_slow_way_is_measured_once_unless_it_has_to_warm_up():
    from perf import ways

    first = {"orbax": sample(11.0, 11.0), "torch": sample(1.0), "tensorflow-async": sample(1.0, 50)}
    assert ways.slow(first) == {"orbax": first["orbax"]}


def test_a_command_is_late_when_it_never_keeps_the_promise():
    from command_line import Took, table

    found = {
        "`ls`": [Took(0.2, 0.3, 0.25), Took(0.1, 0.2, 0.15), Took(0.6, 0.7, 0.35)],
        "`diff`": [Took(0.4, 0.5, 0.45), Took(0.5, 0.6, 0.55)],
    }
    assert table(found)[2:] == [
        "| `ls` | 0.20 s (0.10–0.60) | 0.30 s | 0.25 s |",
        "| `diff` | 0.45 s (0.40–0.50) **late** | 0.55 s | 0.50 s |",
    ]
