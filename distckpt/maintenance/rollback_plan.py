"""Plans a rollback: finds the checkpoints after a given one. Any process; never writes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from distckpt.core import layout, listings
from distckpt.core.manifest import Manifest
from distckpt.core.rollback_record import Leaving, Rollback, crc32c_of
from distckpt.core.tensorflow_format import checkpoint_state
from distckpt.core.tensorflow_format.checkpoint_state import CheckpointState
from distckpt.core.tf_retention import Kept
from distckpt.directory.catalog import Catalog
from distckpt.directory.holds import Holds
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.storage.base import Storage


class RollbackPlanner:
    """Plans a rollback of one directory to `name`, from its current state.

    Args:
      storage: Where the directory is.
      directory: Its absolute path or URL.
      name: The checkpoint that will be the newest.
      now: The time, in seconds since 1970.

    Raises:
      ConfigurationError: A restore would never use that checkpoint.
      CheckpointDamagedError: Its manifest or index is damaged.
      OSError: The directory cannot be read.
    """

    def __init__(self, storage: Storage, directory: str, name: str, now: float) -> None:
        self._storage = storage
        self._directory = directory
        self._name = name
        self._now = now
        self._catalog = Catalog.for_a_look(storage, directory)
        self._view = self._catalog.view(now)
        self._listed = {k.name: k for k in self._view.active}
        self._mine = self._catalog.manifest(name)
        self._check()
        found = listings.classify(storage.list(directory)).checkpoints
        self._manifests: dict[str, Manifest | None] = {}
        self._damaged: set[str] = set()
        for other, files in found.items():
            if files.has_index or files.has_manifest:
                self._look_at(other)

    def later(self) -> tuple[str, ...]:
        """Returns the checkpoints after this one, damaged ones first, then from the newest."""
        order = self._catalog.candidates(self._now)
        known = {name: place for place, name in enumerate(order)}
        names = [n for n in (*self._manifests, *self._damaged) if self._is_later(n)]
        return tuple(sorted(names, key=lambda n: (known.get(n, -1), n)))

    def check_holds(self, later: Iterable[str]) -> None:
        """Checks that none of `later` is pinned, or being read.

        Raises:
          ConfigurationError: One of them is; the message says which, by whom, and what to do.
          OSError: The pins and leases cannot be read.
        """
        held = Holds(self._storage, self._directory).held()
        for name in later:
            if name in held:
                raise ConfigurationError(
                    f"{name} came after {self._name}, and is {held[name]}. Unpin it with "
                    f"`distckpt unpin {layout.join(self._directory, name)}`, or wait until its "
                    "readers end; nothing was changed."
                )

    def plan(self, later: tuple[str, ...], term: int) -> Rollback:
        """Returns the rollback that sets `later` aside, done by the owner of `term`."""
        path = layout.join(self._directory, layout.POINTER_FILE)
        pointer = self._storage.read(path) if self._storage.exists(path) else b""
        stay = [k for k in self._view.active if k.name not in (*later, self._name)]
        after = [*stay, self._kept(self._name)]
        whole = [name for name in later if name not in self._damaged]
        before = [k for k in self._view.active if k.name != whole[0]] if whole else []
        before += [self._kept(name) for name in whole[:1]]
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self._now))
        return Rollback(
            to=self._name,
            folder=layout.set_aside_name(stamp, term),
            leaving=tuple(Leaving(name, self._crc32c(name)) for name in later),
            found=crc32c_of(pointer),
            pointer=self._pointer(after),
            before=self._pointer(before),
        )

    def _check(self) -> None:
        why = self._catalog.quarantined().get(self._name)
        if why is not None:
            raise ConfigurationError(f"{self._name} cannot be restored: {why}")
        if self._mine is None and self._name not in self._listed:
            raise ConfigurationError(
                f"{self._name} is a plain TensorFlow checkpoint that TensorFlow's file does not "
                "list, so nothing tells what came after it. Give it a manifest first: `distckpt "
                f"import {layout.join(self._directory, self._name)}`."
            )

    def _look_at(self, other: str) -> None:
        try:
            manifest = self._catalog.manifest(other)
        except DistckptError:
            self._damaged.add(other)
            return
        if other in self._catalog.quarantined():
            self._damaged.add(other)
        else:
            self._manifests[other] = manifest

    def _is_later(self, other: str) -> bool:
        begun = self._catalog.rollback()
        if other == self._name or (begun is not None and other in begun.names):
            return False
        if other in self._damaged:  # its manifest cannot tell; its name may
            prefix, number = layout.split_number(other)
            mine, own = layout.split_number(self._name)
            return prefix == mine and number is not None and own is not None and number > own
        manifest = self._manifests[other]
        if manifest is not None and self._mine is not None:
            return manifest.order > self._mine.order
        if other in self._listed and self._name in self._listed:
            order = list(self._listed)
            return order.index(other) > order.index(self._name)
        return other in self._listed and self._time(other) > self._time(self._name)

    def _kept(self, name: str) -> Kept:
        return Kept(name, self._time(name))

    def _time(self, name: str) -> float:
        if name in self._listed:
            return self._listed[name].timestamp
        manifest = self._mine if name == self._name else self._manifests[name]
        return min(manifest.committed_at, self._now) if manifest is not None else self._now

    def _crc32c(self, name: str) -> int | None:
        try:
            return self._catalog.index_crc32c(name)
        except DistckptError:
            return None

    def _pointer(self, kept: list[Kept]) -> str:
        """Returns the content of TensorFlow's file with these checkpoints; "" for none."""
        if not kept:
            return ""
        # The next manager would not manage a checkpoint that is not later than that.
        earlier = math.nextafter(min(k.timestamp for k in kept), -math.inf)
        state = CheckpointState(
            latest=kept[-1].name,
            paths=tuple(k.name for k in kept),
            timestamps=tuple(k.timestamp for k in kept),
            last_preserved=min(self._view.last_preserved, earlier),
        )
        return checkpoint_state.render(state).decode()
