"""The command that runs all benchmarks: quiet rounds, the programs, the progress, the page."""

from __future__ import annotations

import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Lets the benchmarks be imported as when they are run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    names = {path.stem for path in BENCHMARKS.glob("*.py")} | {"perf", "regression"}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in names:
            del sys.modules[name]


# --- How quiet the machine was --------------------------------------------------------------------


def quiet(others=0.0, steal=0.0, spread=1.0):
    from perf.quiet import Quiet

    return Quiet(others, steal, spread)


class Watch:
    """Says what it was told to say, one after the other."""

    def __init__(self, quiets):
        self._quiets = iter(quiets)

    def __call__(self):
        return self

    def stop(self):
        return next(self._quiets)


def values(found):
    return [one.value for one in found]


@pytest.mark.parametrize("loud", [{"others": 0.31}, {"steal": 0.06}, {"spread": 1.3}])
def test_each_kind_of_disturbance_is_enough(loud):
    assert quiet(**loud).disturbed
    assert not quiet(0.29, 0.04, 1.2).disturbed


def test_quiet_rounds_are_not_repeated():
    from perf.quiet import repeated

    numbers = iter(range(9))
    found = repeated(lambda: next(numbers), 3, watch=Watch([quiet()] * 9))
    assert values(found) == [0, 1, 2]


def test_disturbed_rounds_are_repeated_and_the_quietest_count():
    from perf.quiet import quietest, repeated

    numbers = iter(range(9))
    watch = Watch([quiet(0.5), quiet(0.1), quiet(spread=2.0), quiet(), quiet()])
    found = repeated(lambda: next(numbers), 2, watch=watch)
    assert values(found) == [0, 1, 2, 3]
    assert values(quietest(found, 2)) == [1, 3]


def test_repeating_ends_although_no_round_is_quiet():
    from perf.quiet import quietest, repeated

    numbers = iter(range(9))
    watch = Watch([quiet(number) for number in (4, 2, 3, 1)])
    found = repeated(lambda: next(numbers), 2, watch=watch)
    assert values(found) == [0, 1, 2, 3]
    assert values(quietest(found, 2)) == [1, 3]


def test_a_round_is_not_repeated_when_no_time_is_left_for_it():
    from perf.quiet import repeated

    seconds = iter(range(0, 900, 10))  # each round takes 10 of them
    watch = Watch([quiet(9.0)] * 9)
    found = repeated(lambda: 0, 1, watch=watch, spare=lambda: 20.0, clock=lambda: next(seconds))
    assert len(found) == 1


def test_own_processes_are_those_below_this_one():
    from perf.quiet import family

    stats = {
        pid: f"{pid} (a ) b) S {parent} 0"
        for pid, parent in {1: 0, 2: 0, 7: 1, 8: 7, 9: 8, 3: 2}.items()
    }
    assert family(stats, 7) == {7, 8, 9}
    assert family(stats, 2) == {2, 3}


def test_steal_is_the_eighth_number_of_the_first_line():
    from perf.quiet import steal_ticks

    assert steal_ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 0 0 0 0 0 0 0 99 0 0\n") == 8


@pytest.mark.posix
def test_the_machine_can_be_watched():
    from perf.quiet import Watch

    watch = Watch()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    found = watch.stop()
    assert 0 <= found.others <= (os.cpu_count() or 1) + 0.5
    assert found.spread >= 1


def test_the_summary_names_what_was_disturbed():
    from perf.quiet import summary

    text = summary([("a", quiet(0.1)), ("b", quiet(0.9, 0.01, 1.5)), ("b", quiet(0.8))], 5)
    assert "3 rounds count, of 5." in text
    assert "0.90 cores" in text
    assert text.endswith("although they count: 2 of 3.\nDisturbed: b.")
    assert summary([], 0) == "Nothing was measured."


# --- Programs -------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Returns a function that makes a benchmark of some lines of Python."""
    from perf import programs

    monkeypatch.setattr(programs, "_FOLDER", tmp_path)

    def make(text):
        (tmp_path / "some.py").write_text("import sys, time, pathlib\n" + text)
        return programs.Benchmark("some", ["--quick"], scratch=False)

    return make


def test_a_program_gives_its_text_and_its_findings(program, tmp_path):
    from perf import programs
    from summary import Figure, Finding

    finding = Finding("a", Figure(1.0, 0.5, 2.0), ("≤", 1.5), " ms")
    content = json.dumps({"findings": [finding.to_json()]})
    some = program(f"print(sys.argv[3:])\npathlib.Path(sys.argv[2]).write_text({content!r})")
    found = programs.run(some, tmp_path, quick=True)
    assert found["text"] == "['--quick']"
    assert [Finding.from_json(data) for data in found["findings"]] == [finding]
    assert finding.line() == "a: 1 (0.5–2) ms, expected ≤ 1.5 ms: met"
    assert programs.run(some, tmp_path, quick=False)["text"] == "[]"


@pytest.mark.parametrize(
    ("text", "why"), [("sys.exit('no disk')", "exit code 1: no disk"), ("", "wrote nothing")]
)
def test_a_program_that_fails_says_why(program, tmp_path, text, why):
    from perf import programs

    with pytest.raises(programs.ProgramFailedError, match=why):
        programs.run(program(text), tmp_path, quick=True)


@pytest.mark.posix
def test_a_program_is_ended_when_the_time_is_up(program, tmp_path):
    from perf import programs
    from perf.progress import Progress, TimeIsUpError

    note = tmp_path / "note"
    some = program(
        f"try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        f"    pathlib.Path({str(note)!r}).write_text('cleaned up')"
    )
    progress = Progress(1, 2.0, io.StringIO())
    before = signal.getsignal(signal.SIGALRM)
    progress.begin()
    try:
        with pytest.raises(TimeIsUpError):
            programs.run(some, tmp_path, quick=True)
    finally:
        progress.end()
        signal.signal(signal.SIGALRM, before)
    assert note.read_text() == "cleaned up"
    assert progress.left() <= 0


def test_every_program_takes_json_and_what_it_is_given():
    from perf.programs import PROGRAMS

    for each in PROGRAMS.values():
        source = (BENCHMARKS / f"{each.name}.py").read_text()
        helpers = (BENCHMARKS / "arguments.py").read_text()
        options = [word for word in each.quick if word.startswith("--")] + ["--json"]
        options += ["--directory"] if each.scratch else []
        for option in options:
            assert f'"{option}"' in source or f'"{option}"' in helpers, (each.name, option)


# --- Progress -------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    from perf.progress import Progress

    now = [100.0]
    for stream in (Terminal(), io.StringIO()):
        progress = Progress(4, stream=stream, clock=lambda: now[0])
        progress.part("stop")
        progress.finished()
        now[0] += 65
        progress.say("hello")
        now[0] -= 65
        if stream.isatty():
            assert stream.getvalue().endswith("\r\x1b[Khello\n[#####---------------] 1/4 1:05 stop")
        else:
            assert stream.getvalue() == "[0/4] stop …\n[1/4] hello\n"
        assert progress.left() == progress.spare() == math.inf


def test_each_part_may_spend_its_share_on_repeating():
    from perf.progress import Progress

    now = [0.0]
    progress = Progress(4, 400.0, io.StringIO(), clock=lambda: now[0])
    now[0] = 30.0
    assert (progress.left(), progress.spare()) == (370.0, 70.0)
    progress.finished()
    assert (progress.left(), progress.spare()) == (370.0, 170.0)


# --- The page -------------------------------------------------------------------------------------


def results(**changed):
    from summary import Figure, Finding

    finding = Finding("looking", Figure(2.0, 1.0, 3.0), ("≤", 1.0), " s")
    free = Finding("free", Figure(2.0, 1.0, 3.0))
    part = {"text": "a table", "findings": [finding.to_json(), free.to_json()]}
    return {
        "machine": {"cores": "2"},
        "settings": {"rounds": 3, "quick": False},
        "sections": {"holding": part, "save_speed": {"text": "more", "findings": []}},
        "left out": {},
        "missing": {"orbax": "cannot be installed: no network"},
        "quiet": {"counting": [["holding", [0.1, 0.0, 1.1]]], "made": 1},
        "interrupted": False,
        **changed,
    }


def test_one_table_tells_measure_bound_reached_met():
    from perf import pages

    found = json.loads(json.dumps(results()))
    text = pages.as_text(found)
    assert "| Measure | Bound | Reached: median (least–most) | Met |" in text
    assert "| looking | ≤ 1 s | 2 (1–3) s | not met |" in text
    assert "| free |  | 2 (1–3) |  |" in text
    assert "Not measured: orbax: cannot be installed: no network." in text
    assert "1 rounds count, of 1." in text


def test_the_page_shows_what_has_a_place_there(tmp_path):
    from perf import pages

    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    pages.write(results(), page, tmp_path / "plots")
    text = page.read_text()
    assert "<!-- begin:holding -->\n\n```text\na table\n```\n<!-- end:holding -->" in text
    for name in pages._SHOWN:
        assert f"<!-- begin:{name} -->" in text


def test_a_disturbed_a_small_and_an_incomplete_run_are_not_for_the_page():
    from perf import pages

    assert pages.objections(results()) == []
    loud = {"counting": [["pace", [0.9, 0.0, 1.0]]], "made": 2}
    assert pages.objections(results(quiet=loud)) == ["disturbed: pace"]
    assert pages.objections(results(settings={"rounds": 1, "quick": True}))
    assert pages.objections(results(**{"left out": {"pace": "the time was up"}}))


# --- The command ----------------------------------------------------------------------------------


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(BENCHMARKS / "performance.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.posix
def test_ctrl_c_ends_it_and_removes_its_files(tmp_path):
    process = start("--quick", "--only", "scale_entries", "--directory", str(tmp_path))
    assert "scale_entries …" in (process.stderr.readline() or "")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert not list(tmp_path.iterdir())


def test_it_writes_nothing_when_the_run_is_not_for_the_page(tmp_path):
    stored = tmp_path / "results.json"
    stored.write_text(json.dumps(results(**{"left out": {"pace": "the time was up"}})))
    page = (ROOT / "docs" / "performance.md").read_bytes()
    process = start("--read", str(stored), "--write")
    text, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "not measured: pace" in errors
    assert "| looking | ≤ 1 s |" in text
    assert (ROOT / "docs" / "performance.md").read_bytes() == page
