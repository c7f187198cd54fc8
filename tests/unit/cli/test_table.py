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

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLUMNS = ("saved", "size", "workers", "took", "loss")


def on_terminal(width, *arguments):
    """Returns the lines that a command prints on a terminal of `width` columns."""
    process, terminal = pty.fork()
    if process == 0:
        try:
            size = struct.pack("HHHH", 40, width, 0, 0)
            fcntl.ioctl(1, termios.TIOCSWINSZ, size)
            environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
            os.execve(SCRIPT, [SCRIPT, *map(str, arguments)], {**environ, "TERM": "xterm"})
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
    return [line.rstrip() for line in ESCAPE.sub("", text.decode()).splitlines()]


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
