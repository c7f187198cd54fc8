from __future__ import annotations

import io
import os
import pty
import threading
from pathlib import Path

import pytest

from distckpt.launcher.output.console import Console, Outlet


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    with open(slave, "w") as stream:
        yield stream
    os.close(master)


def shown(tmp_path: Path, coloured: bool, *lines: bytes) -> bytes:
    with open(tmp_path / "out", "wb", buffering=0) as file:
        console = Console(Outlet(file.fileno(), coloured), Outlet(None))
        console.show(1, "worker 1", "stdout", lines)
    return (tmp_path / "out").read_bytes()


def test_each_line_has_the_worker_before_it(tmp_path: Path) -> None:
    assert shown(tmp_path, False, b"a", b"", b"b\xff") == (
        b"[worker 1] a\n[worker 1] \n[worker 1] b\xff\n"
    )


def test_no_lines_show_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path, False) == b""


def test_only_the_name_is_coloured(tmp_path: Path) -> None:
    assert shown(tmp_path, True, b"text") == b"\x1b[33m[worker 1]\x1b[0m text\n"


def test_a_colour_that_a_worker_leaves_on_ends_with_its_line(tmp_path: Path) -> None:
    assert shown(tmp_path, True, b"\x1b[31mred").endswith(b" \x1b[31mred\x1b[0m\n")


def test_a_terminal_is_coloured(terminal) -> None:
    assert Outlet.of(terminal, {}).coloured


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_is_not_coloured_when_the_user_says_so(terminal, environ) -> None:
    assert not Outlet.of(terminal, environ).coloured


def test_a_file_is_not_coloured(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as file:
        assert not Outlet.of(file, {}).coloured


def test_a_stream_that_was_closed_at_the_start_takes_and_drops_everything() -> None:
    Outlet.of(None, {}).write(b"text")


def test_a_reader_that_has_gone_is_no_reason_to_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outlet = Outlet(writing)
    outlet.write(b"text")
    os.close(writing)
    outlet.write(b"not even tried, or it would hit a closed descriptor")


def test_a_non_blocking_stream_gets_everything(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = io.BytesIO()
    with open(reading, "rb") as file:
        reader = threading.Thread(target=lambda: received.write(file.read()))
        reader.start()
        Outlet(writing).write(b"x" * 1_000_000)
        os.close(writing)
        reader.join()
    assert len(received.getvalue()) == 1_000_000


def test_messages_of_the_launcher_go_to_standard_error(tmp_path: Path) -> None:
    with open(tmp_path / "err", "wb", buffering=0) as file:
        Console(Outlet(None), Outlet(file.fileno())).say("worker 1 died")
    assert (tmp_path / "err").read_text() == "distckpt launch: worker 1 died\n"
