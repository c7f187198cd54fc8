from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distckpt.launcher.output.console import Console, Outlet
from distckpt.launcher.output.pump import PATIENCE, Pump
from distckpt.launcher.output.worker_output import TAIL, WorkerOutput

from ..kit.eventually import eventually


class Bench:
    """A pump with one pipe, and a file as its console."""

    def __init__(self, console: Path, log: str | None = None) -> None:
        self._console = console
        self._file = open(console, "wb", buffering=0)  # noqa: SIM115
        outlet = Outlet(self._file.fileno())
        self.pump = Pump(Console(outlet, outlet))
        reading, self.pipe = os.pipe()
        self.output = WorkerOutput(0, "worker 0", log)
        self.pump.add(reading, self.output, "stdout")
        self.pump.start()

    def shown(self) -> str:
        return self._console.read_text(errors="surrogateescape")

    def close(self) -> None:
        os.close(self.pipe)
        assert self.pump.finish(10.0)
        self._file.close()


@pytest.fixture
def bench(tmp_path: Path):
    bench = Bench(tmp_path / "console", str(tmp_path / "log"))
    yield bench
    if not bench._file.closed:
        bench.close()


def test_output_goes_to_console_log_and_memory(bench: Bench, tmp_path: Path) -> None:
    os.write(bench.pipe, b"one\r\ntwo\xff\n")
    bench.close()
    assert bench.shown().encode(errors="surrogateescape") == b"[worker 0] one\n[worker 0] two\xff\n"
    assert (tmp_path / "log").read_bytes() == b"one\r\ntwo\xff\n", "the log is not touched up"
    assert bench.output.text() == "one\r\ntwo\N{REPLACEMENT CHARACTER}\n"


def test_an_unfinished_line_is_shown_when_the_worker_ends(bench: Bench) -> None:
    os.write(bench.pipe, b"no end")
    bench.close()
    assert bench.shown() == "[worker 0] no end\n"


def test_an_unfinished_line_is_shown_after_a_while(bench: Bench, processes) -> None:
    os.write(bench.pipe, b"password: ")
    eventually(lambda: bench.shown() == "[worker 0] password: \n")


def test_a_progress_bar_shows_about_one_line_a_second(bench: Bench) -> None:
    began = time.monotonic()
    while time.monotonic() < began + 2.5 * PATIENCE:
        os.write(bench.pipe, b"\r50%")
        time.sleep(0.01)
    os.write(bench.pipe, b"\r100%\n")
    bench.close()
    lines = bench.shown().splitlines()
    assert lines[-1] == "[worker 0] 100%"
    assert 2 <= len(lines) <= 4


def test_a_message_comes_after_what_was_written_before_it(bench: Bench, processes) -> None:
    os.write(bench.pipe, b"last words\n")
    eventually(lambda: "last words" in bench.shown())
    bench.pump.say("worker 0 died")
    bench.close()
    assert bench.shown() == "[worker 0] last words\ndistckpt launch: worker 0 died\n"


def test_a_message_after_the_end_is_dropped(bench: Bench) -> None:
    bench.close()
    bench.pump.say("too late")
    assert bench.shown() == ""


def test_memory_keeps_the_last_part_of_very_much_output(tmp_path: Path) -> None:
    output = WorkerOutput(0, "worker 0")
    for number in range(400_000):
        output.record(b"%09d\n" % number)
    text = output.text()
    assert len(text) == TAIL
    assert text.endswith("000399999\n")


def test_a_pipe_that_somebody_holds_open_does_not_keep_the_pump(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "console")
    os.write(bench.pipe, b"text")
    assert bench.pump.finish(10.0)
    assert bench.shown() == "[worker 0] text\n"
    os.close(bench.pipe)
    bench._file.close()


def test_a_console_that_blocks_keeps_nobody_waiting_and_loses_nothing(processes) -> None:
    blocked, console = os.pipe()
    reading, writing = os.pipe()
    output = WorkerOutput(0, "worker 0")
    pump = Pump(Console(Outlet(console), Outlet(None)))
    pump.add(reading, output, "stdout")
    pump.start()
    os.set_blocking(writing, False)
    written = _fill(writing, lambda: len(output.text()))
    began = time.monotonic()
    assert not pump.finish(0.2)
    assert time.monotonic() - began < 5.0
    os.close(writing)

    received = b""
    while not pump.finish(0.0):
        if select.select([blocked], [], [], 0.1)[0]:
            received += os.read(blocked, 65536)
    os.close(console)
    with open(blocked, "rb") as rest:
        received += rest.read()
    assert received.count(b"x") == written


def test_a_line_is_not_cut_because_the_console_was_blocked(processes) -> None:
    blocked, console = os.pipe()
    pump = Pump(Console(Outlet(console), Outlet(None)))
    outputs, pipes = [], []
    for index in range(2):
        reading, writing = os.pipe()
        outputs.append(WorkerOutput(index, f"worker {index}"))
        pump.add(reading, outputs[index], "stdout")
        pipes.append(writing)
    pump.start()
    os.write(pipes[0], b"half")
    eventually(lambda: outputs[0].text() == "half")
    os.write(pipes[1], b"x\n" * 30_000)  # with names more than the console's pipe can hold
    time.sleep(1.5 * PATIENCE)
    os.write(pipes[0], b" line\n")

    received = b""
    while not pump.finish(0.0):
        if select.select([blocked], [], [], 0.1)[0]:
            received += os.read(blocked, 65536)
    for fd in (*pipes, console):
        os.close(fd)
    with open(blocked, "rb") as rest:
        received += rest.read()
    assert b"[worker 0] half line\n" in received


def _fill(pipe: int, taken: Callable[[], int]) -> int:
    """Writes lines until nothing moves any more; returns how many."""
    written, quiet = 0, 0
    while quiet < 20:
        try:
            written += os.write(pipe, b"x\n" * 1000) // 2
            quiet = 0
        except BlockingIOError:
            time.sleep(0.01)
            quiet += 1
    assert 0 < taken() < 2 * written
    return written


def test_a_log_that_cannot_be_written_is_reported_once_and_given_up(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, a file on a full disk")
    bench = Bench(tmp_path / "console", "/dev/full")
    for _ in range(3):
        os.write(bench.pipe, b"text\n")
        time.sleep(0.05)
    bench.close()
    assert bench.shown().count("[worker 0] text") == 3
    assert bench.shown().count("no longer kept: /dev/full: No space left on device") == 1


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    Bench(tmp_path / "console", str(tmp_path / "log")).close()
    idle = Pump(None)
    assert idle.finish(0.0)
    assert len(os.listdir("/proc/self/fd")) <= before
