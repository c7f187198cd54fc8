"""Arguments of the benchmarks."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def positive(text: str) -> int:
    """Returns a whole number above 0; for `type` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def parser_for_rounds(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of a benchmark that repeats rounds in a scratch folder."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=5, help="rounds that count; one more warms up")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="write below this directory")
    add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the option by which performance.py has a benchmark write what it found."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
