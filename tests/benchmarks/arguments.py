"""Arguments of the benchmarks."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """Returns a whole number above 0; for `type` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
