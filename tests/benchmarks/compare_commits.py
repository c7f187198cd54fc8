"""Compares what a commit costs with what another one costs.

    python tests/benchmarks/compare_commits.py HEAD --with main --rounds 5

Two processes, one for each commit, take turns. In every round, each measurement runs in both, one
after the other; which comes first changes from round to round. Only processor time and counts
are compared, because other processes change them less than seconds. A is the commit given by
--with, B is COMMIT.

Exit codes: 0 if nothing has become worse; 1 if a median ratio of processor times is above what is
allowed and every round's is above 1, or if a count has grown; 2 if the commits cannot be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import report
from arguments import positive
from regression import comparison, other_load, trees
from regression.child import Child, ChildFailedError
from regression.comparison import Round, Sample
from regression.other_load import Load

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("A", "B")


class Comparison:
    """The two processes, and the measurements that both can make.

    Args:
      children: The processes of A and of B.
    """

    def __init__(self, children: tuple[Child, Child]) -> None:
        self._children = children
        self.names = children[0].names("A")
        children[1].names("B")  # the same; now both have started
        self._begins = {name: random.randrange(2) for name in self.names}

    def round(self, number: int) -> Round:
        """Measures everything once, in random order; leaves out for good what fails."""
        pids = [os.getpid(), *(child.pid for child in self._children)]
        before, samples = Load.now(pids), {}
        for name in random.sample(self.names, len(self.names)):
            order = (0, 1) if (number + self._begins[name]) % 2 else (1, 0)
            pair = {side: self._measure(side, name) for side in order}
            if (a := pair[0]) is not None and (b := pair[1]) is not None:
                samples[name] = (a, b)
            else:
                self.names.remove(name)
        return Round(samples, before.others_until(Load.now(pids)))

    def _measure(self, side: int, name: str) -> Sample | None:
        found = self._children[side].measure(name)
        if "error" in found:
            report.complain(f"{SIDES[side]} cannot measure '{name}', left out: {found['error']}")
            return None
        return Sample(found["cpu"], found["counts"])


def main() -> int:
    """Runs the comparison; returns the exit code."""
    options = _parse()
    signal.signal(signal.SIGTERM, _stop)
    options.directory.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="compare-commits-", dir=options.directory)).resolve()
    try:
        commit = trees.find(ROOT, options.commit)
        base = trees.find(ROOT, options.base) if options.base else trees.base_of(ROOT, commit)
        print(f"A: {base.title}\nB: {commit.title}")
        print(report.describe_machine(report.machine(scratch)), flush=True)
        return _compare((base, commit), scratch, options)
    except (trees.UnknownCommitError, ChildFailedError) as error:
        report.complain(str(error))
        return 2
    except KeyboardInterrupt:
        report.complain("Interrupted.")
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compare(
    commits: tuple[trees.Commit, trees.Commit], scratch: Path, options: argparse.Namespace
) -> int:
    with contextlib.ExitStack() as stack:
        children = []
        for side, commit in zip(SIDES, commits, strict=True):
            tree = scratch / side / "tree"
            trees.check_out(ROOT, commit, tree)
            children.append(stack.enter_context(Child(tree, scratch / side)))
        both = Comparison((children[0], children[1]))
        both.round(0)  # warms up
        rounds: list[Round] = []
        while both.names and not other_load.enough(rounds, options.rounds):
            rounds.append(both.round(len(rounds) + 1))
            report.complain(f"  round {len(rounds)}: others took {rounds[-1].others:.2f} cores")
    if not both.names:
        report.complain("No measurement is left.")
        return 2
    return _judge(rounds, both.names, options)


def _judge(rounds: list[Round], names: list[str], options: argparse.Namespace) -> int:
    counting = other_load.quietest(rounds, options.rounds)
    found = comparison.rows(counting, names)
    print(f"\n{comparison.table(found, options.allow)}\n")
    print(other_load.describe(rounds, counting))
    worse = {row.name: texts for row in found if (texts := row.regressions(options.allow))}
    for name, texts in worse.items():
        print(f"regression: {name}: {'; '.join(texts)}")
    if not worse:
        print("no regression")
    return 1 if worse else 0


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt  # so that a TERM removes the files, too


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compares what a commit costs with what another one costs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit codes: 0: no regression; 1: a regression; 2: cannot be compared.",
    )
    add = parser.add_argument
    add("commit", metavar="COMMIT", nargs="?", default="HEAD", help="'.' is the working tree")
    add("--with", dest="base", metavar="COMMIT", help="default: main, or main~1 if COMMIT is main")
    add("--rounds", type=positive, default=5, help="rounds that count; one more warms up")
    add("--directory", type=Path, default=tempfile.gettempdir(), help="save below this directory")
    text = "how much more processor time is allowed"
    add("--allow", type=_percentage, metavar="PERCENT", default="15", help=text)
    return parser.parse_args()


def _percentage(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage")
    return number / 100


if __name__ == "__main__":
    sys.exit(main())
