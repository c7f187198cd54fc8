"""``python -m distckpt``: the same as the console script ``distckpt``."""

from __future__ import annotations

from distckpt.cli import main

if __name__ == "__main__":
    main(prog_name="distckpt")
