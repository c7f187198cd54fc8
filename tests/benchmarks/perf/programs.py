"""The benchmarks that are programs of their own: how they are run, and what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from summary import Finding

_FOLDER = Path(__file__).resolve().parents[1]
_PATIENCE = 20.0  # seconds that a program gets to clean up
_CALM = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A program beside this package, which takes ``--json FILE``.

    Attributes:
      name: Of the file, and of the section.
      quick: Its arguments with --quick; otherwise it has none.
      scratch: Whether it takes ``--directory``.
    """

    name: str
    quick: Sequence[str]
    scratch: bool = True


PROGRAMS = {
    each.name: each
    for each in (
        Benchmark(
            "first_update",
            ["--rounds", "1", "--saves", "2", "--only", "default", "--patience", "2"],
        ),
        Benchmark(
            "real_training",
            ["--batch", "2", "--size", "64", "--saves", "2", "--between", "3"],
        ),
        Benchmark("data_file", ["--megabytes", "64", "--rounds", "2"]),
        Benchmark("holding", ["--variables", "1000", "--rounds", "2"]),
        Benchmark("restoring", ["--megabytes", "64", "--small", "500", "--rounds", "2"]),
        Benchmark(
            "save_speed",
            ["--workers", "1,2", "--states", "big", "--megabytes", "64", "--rounds", "2"],
        ),
        Benchmark("command_line", ["--rounds", "2", "--only", "ls"], scratch=False),
        Benchmark("input_speed", ["--rounds", "2", "--steps", "50"], scratch=False),
        Benchmark("scale_entries", ["--most", "10000", "--rounds", "1"], scratch=False),
    )
}


class ProgramFailedError(RuntimeError):
    """A program failed; the text says why, in one line."""


def run(benchmark: Benchmark, scratch: Path, quick: bool) -> dict[str, Any]:
    """Runs a program; returns what it printed ("text"), and its "findings".

    Raises:
      ProgramFailedError: It failed.
    """
    result = scratch / f"{benchmark.name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(_FOLDER / f"{benchmark.name}.py"), "--json", str(result)]
    command += benchmark.quick if quick else []
    command += ["--directory", str(scratch / benchmark.name)] if benchmark.scratch else []
    code, text, errors = _ended(command)
    if code or not result.exists():
        lines = [line for line in errors.splitlines() if line.strip()] or ["it wrote nothing"]
        raise ProgramFailedError(f"exit code {code}: {lines[-1].strip()[:160]}")
    return {"text": text.strip(), "findings": json.loads(result.read_text())["findings"]}


def _ended(command: list[str]) -> tuple[int, str, str]:
    """Runs `command` to its end, or ends it when this process is interrupted."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **_CALM},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the terminal's Ctrl-C would reach it twice
    )
    try:
        text, errors = process.communicate()
    except BaseException:
        _end(process)
        raise
    return process.returncode, text, errors


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupts a program, so that it removes its files, then kills all that is left of it."""
    process.send_signal(signal.SIGINT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def findings(results: dict[str, Any]) -> list[Finding]:
    """Returns what the programs among the sections found."""
    return [
        Finding.from_json(data)
        for name in PROGRAMS
        for data in results.get(name, {}).get("findings", [])
    ]


def text_block(result: dict[str, Any]) -> str:
    """Returns what a program printed, for a page; the empty line parts it from the marker."""
    return f"\n```text\n{result['text']}\n```"
