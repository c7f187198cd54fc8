"""What the sections share: options, environments, states, and processes that are ready."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import disk

from distckpt.launcher.ports import pick_ports
from perf import environments, quiet, ways
from perf.group import Group, PeerFailedError
from perf.progress import Progress

T = TypeVar("T")

_SHAPES = Path(__file__).resolve().parents[1] / "peers" / "keras_shapes.py"


class Lab:
    """One run of the benchmark.

    Attributes:
      options: Of the command line.
      missing: {library: why it cannot be had, in one line}.
      failed: {way or process: why it could not be measured, in one line}, since the last `groups`.
      versions: {name: version} of all that was started.
      progress: What tells how far it is, and how much time is left.
      counting: What was measured, and how quiet it was, of each round that counts.
      made: How many rounds were made, also those that do not count.
    """

    def __init__(self, options: argparse.Namespace, scratch: Path, progress: Progress) -> None:
        self.options = options
        self.scratch = scratch
        self.progress = progress
        self.counting: list[tuple[str, quiet.Quiet]] = []
        self.made = 0
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._pythons: dict[str, str] = {}
        self._resnet: dict[str, Any] = {}

    def keras(self) -> list[dict[str, Any]]:
        """Returns the description of ResNet50 with Adam; nothing if all is to be quick."""
        if self.options.quick:
            return []
        if not self._resnet:
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            command = [sys.executable, str(_SHAPES)]
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            self._resnet = ways.resnet(json.loads(done.stdout))
        return [self._resnet]

    @contextlib.contextmanager
    def groups(
        self,
        names: Sequence[str],
        state: dict[str, Any],
        count: int = 1,
        *,
        by: str = "",
        fresh: bool = False,
        folder: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Group]]:
        """Yields {way: its processes, with the state made}; ends them afterwards.

        Ways that cannot be had are left out, see `reasons`.

        Args:
          names: The ways.
          state: What to make.
          count: The number of processes of each.
          by: The attribute of `Way` in which ways that share processes agree. Default: "process",
            or with --quick "library".
          fresh: See `Library.build`.
          variables: Variables of the environment.
          folder: Where they save, below the scratch directory. Default: a new one, removed at last.
        """
        self.failed = {}
        by = by or ("library" if self.options.quick else "process")
        home = self.scratch / (folder or f"{state['kind']}-{time.monotonic_ns()}")
        started: dict[str, Group] = {}
        try:
            for name in names:
                way = ways.WAYS[name]
                key = getattr(way, by)
                if key not in started and way.library not in self.missing:
                    self._start(started, key, way.library, count, variables or {})
            for key in list(started):
                self._make_ready(started, key, home / key, state, fresh)
            found = {name: started.get(getattr(ways.WAYS[name], by)) for name in names}
            yield {name: group for name, group in found.items() if group is not None}
        finally:
            for group in started.values():
                group.close()
            if not folder:
                shutil.rmtree(home, ignore_errors=True)

    def _make_ready(
        self, started: dict[str, Group], key: str, folder: Path, state: Any, fresh: bool
    ) -> None:
        """Waits until it is; all have been starting meanwhile."""
        started[key].folder = folder
        try:
            self.versions |= started[key].call("hello")[0]
            started[key].call("prepare", state=state, folder=str(folder), fresh=fresh)
        except PeerFailedError as error:
            self.give_up(key, error)
            started.pop(key).close()

    def prepare(self) -> None:
        """Makes the environments of all libraries, or finds out which cannot be had."""
        for library in environments.REQUIREMENTS:
            self._python(library)

    def _start(
        self,
        started: dict[str, Group],
        key: str,
        library: str,
        count: int,
        variables: Mapping[str, str],
    ) -> None:
        if python := self._python(library):
            started[key] = Group(library, python, pick_ports(count), variables)

    def _python(self, library: str) -> str | None:
        """Returns the interpreter for `library`; None if it cannot be had, see `missing`."""
        if library not in self._pythons and library not in self.missing:
            began = time.monotonic()
            try:
                root = self.options.environments
                self._pythons[library] = environments.python_of(library, root)
            except environments.EnvironmentFailedError as error:
                self.missing[library] = f"cannot be installed: {error}"
                self.say(f"  {library} {self.missing[library]}")
            if (took := time.monotonic() - began) > 1.0:
                self.say(f"  the environment of {library} took {took:.0f} s")
        return self._pythons.get(library)

    def reasons(self, names: Sequence[str]) -> dict[str, str]:
        """Returns {way: why it was not measured} of those ways of `names` that failed."""
        found = {}
        for name in names:
            way = ways.WAYS[name]
            whys = (self.missing.get(way.library), *map(self.failed.get, (way.process, name)))
            if why := next(filter(None, whys), None):
                found[name] = why
        return found

    def give_up(self, name: str, error: Exception) -> None:
        """Notes that a way cannot be measured."""
        self.failed[name] = str(error).strip().splitlines()[-1].strip()[:120]
        self.say(f"  {name} failed: {str(error)[-2000:]}")

    def rounds(self, title: str, measure: Callable[[], T], wanted: int) -> list[T]:
        """Returns `wanted` rounds, the least disturbed of at most twice as many.

        Args:
          title: What is measured, for the report of how quiet the machine was.
          measure: Makes one round.
          wanted: How many rounds are to count.
        """
        found = quiet.repeated(measure, wanted, spare=self.progress.spare)
        counting = quiet.quietest(found, wanted)
        self.made += len(found)
        self.counting += [(title, one.quiet) for one in counting]
        self.say(f"  {title}: " + "; ".join(str(one.quiet) for one in found))
        return [one.value for one in counting]

    def settle(self) -> bool:
        """Waits until the disk is at rest; returns whether it is."""
        return disk.settle(self.options.patience)

    def say(self, text: str) -> None:
        """Tells on standard error how far it is."""
        self.progress.say(text)
