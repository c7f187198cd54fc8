"""Runs the files given, in their order, as one program. ``exit`` ends a file, not the program."""

from __future__ import annotations

import pathlib
import sys

names = {"__name__": "__main__"}
for path in sys.argv[1:]:
    try:
        exec(compile(pathlib.Path(path).read_text(), path, "exec"), names)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
