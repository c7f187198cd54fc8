"""One process of `guided`: libFuzzer chooses the inputs of one target, and never returns.

    python -m tests.fuzz.guide MODULE TARGET SECONDS SEED PATIENCE FOLDER

FOLDER has the honest inputs in `corpus` and gets `result.json`, and each input that broke the
parser.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pathlib
import random
import re
import sys
import tempfile
import time

import atheris

# Whose branches libFuzzer gets to see.
INSTRUMENTED = [
    "distckpt.core",
    "distckpt.directory.catalog",
    "distckpt.ownership.fencing",
    "google.protobuf.text_format",
]
LONGEST = 1 << 16  # bytes of an input, as in `mutations`
MOST_MEMORY = 2048  # MB of the whole process
OWN_MUTATIONS = 0.3  # how many of all
MOST_CRASHES = 10  # different ones; then it is of no use to go on


class Search:
    """Feeds what libFuzzer makes up, until the time is over."""

    def __init__(self, target, seconds: float, folder: pathlib.Path) -> None:
        from .judge import Tally

        self._target = target
        self._folder = folder
        self._tally = Tally()
        self._crashes: dict[str, str] = {}
        self._deadline = time.monotonic() + seconds

    def feed(self, data: bytes) -> None:
        from .judge import Broken, judge

        try:
            judge(self._target, data, self._tally)
        except Broken as error:
            self._note(error, data)
        if time.monotonic() > self._deadline or len(self._crashes) == MOST_CRASHES:
            self._end()

    def _note(self, error: Exception, data: bytes) -> None:
        place = _place(error)
        if place not in self._crashes:
            path = self._folder / f"crash-{len(self._crashes) + 1}"
            path.write_bytes(data)
            self._crashes[place] = f"{error}, {place}, for the input {path}"

    def _end(self) -> None:
        result = {
            "accepted": self._tally.accepted,
            "refused": self._tally.refused,
            "crashes": list(self._crashes.values()),
        }
        (self._folder / "result.json").write_text(json.dumps(result))
        os._exit(0)  # libFuzzer takes every other end for a crash


def _place(error: Exception) -> str:
    """Returns what tells one crash from another: where the parser raised."""
    cause = error.__cause__
    if cause is None:
        return "memory out of proportion"
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"
    return f"{type(cause).__name__} at {where}"


def _mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Mutates as libFuzzer does, which knows the branches, or as `mutate`, which knows JSON."""
    from .mutations import mutate

    chance = random.Random(seed)
    if chance.random() < OWN_MUTATIONS:
        return mutate(data, chance)[:longest]
    return atheris.Mutate(data, longest)


def _dictionary(seeds: tuple[bytes, ...]) -> str:
    """Returns words to make inputs of, in libFuzzer's notation: those of the seeds, and nasty ones.

    A coverage of Python does not show the keys that json and the protobuf library look for.
    """
    from .mutations import HUGE, ODD

    words = {word for seed in seeds for word in re.findall(rb"[\w.-]{3,40}", seed)}
    words |= {str(number).encode() for number in HUGE}
    words |= {word.encode(errors="surrogatepass")[:60] for word in ODD if word}
    words |= {b"NaN", b"Infinity", b"1e999", b"null", b"true", b'"\\ud800"', b"\\000"}
    return "".join(
        '"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in word)) for word in sorted(words)
    )


def main(module: str, name: str, seconds: str, seed: str, patience: str, directory: str) -> None:
    atheris.enabled_hooks.add("str")  # not "RegEx": its patterns take no position
    folder = pathlib.Path(directory)
    with atheris.instrument_imports(include=[*INSTRUMENTED, module]):
        target = importlib.import_module(module).targets()[name]
    logging.disable()
    tempfile.tempdir = directory  # nobody else cleans up
    (folder / "dictionary").write_text(_dictionary(target.seeds))
    flags = [
        f"-seed={seed}",
        f"-max_len={LONGEST}",
        f"-timeout={patience}",
        f"-rss_limit_mb={MOST_MEMORY}",
        f"-dict={folder / 'dictionary'}",
        f"-artifact_prefix={folder}/",
    ]
    feed = Search(target, float(seconds), folder).feed
    atheris.Setup([name, *flags, str(folder / "corpus")], feed, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
