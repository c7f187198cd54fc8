"""Measures how soon the commands that look at a directory answer.

    python tests/benchmarks/command_line.py --rounds 10

The promise is 0.3 seconds to the first line. It saves two directories: one with 20 checkpoints of
1,000 tensors, one with 2 of 10,000; and it makes one of 1,000 small checkpoints of 4 files. Then it
runs each command once in every round, in random order, through the installed script and into a
pipe: until its first line, until its end, and how much time of the processor it took. What Python
takes to start alone stands beside it. All files are in memory by then: what a cold disk or a
network adds is not measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import report
from arguments import add_json
from summary import Figure, Finding

from distckpt.core import layout, manifest_json
from distckpt.core.tensorflow_format import checkpoint_state

PROMISE = 0.3  # seconds
_SCRIPT = os.path.join(os.path.dirname(sys.executable), "distckpt")
_SAVE = """
import sys
import tensorflow as tf
import distckpt

directory, variables, checkpoints = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
values = [tf.Variable(tf.fill([10], float(number))) for number in range(variables)]
checkpoint = tf.train.Checkpoint(values=values)
options = distckpt.ManagerOptions(durable=False)
with distckpt.CheckpointManager(checkpoint, directory, checkpoints, options=options) as manager:
    for number in range(checkpoints):
        for value in values[number::10]:
            value.assign_add(tf.ones([10]))
        manager.save()
"""


@dataclasses.dataclass(frozen=True)
class Took:
    """One run of a command.

    Attributes:
      first: Seconds until its first line was there.
      whole: Seconds until it had ended.
      cpu: Seconds of the processor, all threads together.
    """

    first: float
    whole: float
    cpu: float


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count; one warms up")
    parser.add_argument("--only", default="", help="only commands that contain this text")
    add_json(parser)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="command-line-"))
    print(report.describe_machine(report.machine(scratch)), flush=True)
    try:
        many, large = scratch / "many", scratch / "large"
        for directory, variables, checkpoints in ((many, 1000, 20), (large, 10000, 2)):
            _save(directory, variables, checkpoints)
        small = scratch / "small"
        _copy(many, small, 1000)
        commands = _commands(many, large, small)
        commands = {name: words for name, words in commands.items() if options.only in name}
        found = _measure(commands, options.rounds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("\n" + "\n".join(table(found)))
    report.write_findings(options.json, findings(found))
    return 0


def _commands(many: Path, large: Path, small: Path) -> dict[str, list[str]]:
    """Returns the commands, by what the table calls them."""
    commands = {"`python -c 'print()'`": [sys.executable, "-c", "print()"]}
    for words in (["--version"], ["--help"]):
        commands[f"`{words[0]}`"] = [_SCRIPT, *words]
    for where, directory, last in (("20 × 1,000", many, 20), ("2 × 10,000", large, 2)):
        newest, before = (str(directory / f"ckpt-{number}") for number in (last, last - 1))
        for words in (
            ["ls", str(directory)],
            ["ls", str(directory), "--why"],
            ["show", newest],
            ["verify", newest],
            ["diff", before, newest],
            ["gc", str(directory), "--dry-run"],
            ["watch", str(directory), "--for", "0"],
        ):
            shown = " ".join(word for word in words if os.sep not in word)
            commands[f"`{shown}`, {where}"] = [_SCRIPT, *words]
    commands["`ls`, 1,000 checkpoints of 4 files"] = [_SCRIPT, "ls", str(small)]
    return commands


def _save(directory: Path, variables: int, checkpoints: int) -> None:
    words = [sys.executable, "-c", _SAVE, str(directory), str(variables), str(checkpoints)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(words, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"the checkpoints could not be saved:\n{done.stderr}")


def _copy(source: Path, target: Path, count: int) -> None:
    """Makes a directory of many small checkpoints: one of 4 files, under other names."""
    target.mkdir()
    path = source / "ckpt-1.manifest.json"
    first = manifest_json.parse(path.read_bytes())
    (file,) = first.files
    entries = tuple(msgspec.structs.replace(e, pieces=()) for e in first.entries[:4])
    index = (source / "ckpt-1.index").read_bytes()
    names = [f"ckpt-{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names, start=1):
        files = [layout.data_name(name, shard, 4) for shard in range(4)]
        for one in files:
            (target / one).write_bytes(b"x")
        (target / layout.index_name(name)).write_bytes(index)
        records = tuple(dataclasses.replace(file, name=one, size=1) for one in files)
        new = dataclasses.replace(
            first,
            name=name,
            step=number,
            sequence=number,
            index=dataclasses.replace(first.index, name=layout.index_name(name)),
            files=records,
            entries=entries,
        )
        (target / layout.manifest_name(name)).write_bytes(manifest_json.render(new))
    times = tuple(map(float, range(count)))
    state = checkpoint_state.CheckpointState(names[-1], tuple(names), times)
    (target / layout.POINTER_FILE).write_bytes(checkpoint_state.render(state))


def _measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Took]]:
    found: dict[str, list[Took]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        names = list(commands)
        random.shuffle(names)
        for name in names:
            took = _run(commands[name])
            if number:
                found[name].append(took)
    return found


def _run(words: Sequence[str]) -> Took:
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - began
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: the two differ
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return Took(first, whole, usage.ru_utime + usage.ru_stime)


def findings(found: dict[str, list[Took]]) -> list[Finding]:
    """Returns when the first line of each of our commands was there."""
    return [
        Finding(f"{name}: first line", Figure.of(t.first for t in runs), ("≤", PROMISE), " s")
        for name, runs in found.items()
        if "python" not in name
    ]


def table(found: dict[str, list[Took]]) -> list[str]:
    """Returns the lines of a table, in the order of `found`."""
    lines = [
        "| Command | first line: median (min–max) | whole | CPU |",
        "|---|---|---|---|",
    ]
    for name, runs in found.items():
        firsts = [took.first for took in runs]
        first = f"{statistics.median(firsts):.2f} s ({min(firsts):.2f}–{max(firsts):.2f})"
        whole = statistics.median(took.whole for took in runs)
        cpu = statistics.median(took.cpu for took in runs)
        late = "" if min(firsts) <= PROMISE else " **late**"
        lines.append(f"| {name} | {first}{late} | {whole:.2f} s | {cpu:.2f} s |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
