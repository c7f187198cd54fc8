"""Tables on terminals of several widths: nothing is cut, and what is hidden is named."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios

import pytest

from .conftest import SCRIPT
from .damages import COMMANDS, KINDS, prepare

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?[34][0-9](?:;[0-9;]*)?m")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLUMNS = ("saved", "size", "workers", "took", "loss")


def on_terminal(width, *arguments):
    """Returns the lines that a command prints on a terminal of `width` columns."""
    text = ESCAPE.sub("", raw(width, *arguments))
    return [line.rstrip() for line in text.splitlines()]


def raw(width, *arguments, **more):
    """Returns what a command prints on a terminal of `width` columns, with all escape sequences."""
    process, terminal = pty.fork()
    if process == 0:
        try:
            size = struct.pack("HHHH", 40, width, 0, 0)
            fcntl.ioctl(1, termios.TIOCSWINSZ, size)
            environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
            environ |= {"TERM": "xterm", **more}
            os.execve(SCRIPT, [SCRIPT, *map(str, arguments)], environ)
        finally:
            os._exit(127)
    text = b""
    while True:
        try:
            new = os.read(terminal, 65536)
        except OSError:  # the process has ended
            break
        if not new:
            break
        text += new
    os.close(terminal)
    os.waitpid(process, 0)
    return text.decode()


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120])
def test_ls_shows_name_step_and_state_on_any_terminal(template, width):
    lines = on_terminal(width, "ls", template)
    header = lines[0].split()
    assert {"checkpoint", "step", "state"} <= set(header)
    for number in (2, 3, 4, 5):
        row = next(line.split() for line in lines if f"ckpt-{number}" in line)
        assert row[-1] == "committed"
        assert str(10 * number) in row
    table = [line for line in lines if not line.startswith("Hidden")]
    assert width < 40 or max(map(len, table)) <= width
    hidden = [column for column in COLUMNS if column not in header]
    last = f"Hidden on a terminal of {width} columns: {', '.join(hidden)}."
    assert lines[-1] == last if hidden else not lines[-1].startswith("Hidden")


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_show_never_drops_the_values(template, width):
    lines = on_terminal(width, "show", template, "--values")
    header = next(line.split() for line in lines if line.startswith("tensor"))
    assert {"tensor", "shape", "values"} <= set(header)
    assert "min 5" in "".join(lines)
    hidden = next((line for line in lines if line.startswith("Hidden")), "")
    assert all((column in header) != (column in hidden) for column in ("type", "size", "files"))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_uses_colours_if_the_user_wants_none(run, command):
    kind = "a data file is cut off or missing"
    prepare(run, command, kind, KINDS[kind][0])
    text = raw(80, *COMMANDS[command](run), NO_COLOR="1")
    assert text
    assert not COLOUR.search(text), text
    if command in ("ls", "verify", "doctor"):
        assert COLOUR.search(raw(80, *COMMANDS[command](run)))
