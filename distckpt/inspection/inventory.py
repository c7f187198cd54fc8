"""Lists the content of a directory for people. Any process; never writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from distckpt.core import attempts, layout
from distckpt.core.manifest import Manifest
from distckpt.core.pins_and_leases import Lease, Pin
from distckpt.directory.catalog import Catalog, View
from distckpt.directory.holds import Holds
from distckpt.errors import DistckptError
from distckpt.inspection import damage, keep_reasons, set_aside
from distckpt.inspection.set_aside import SetAside
from distckpt.ownership import owner_record
from distckpt.ownership.owner_record import Owner
from distckpt.storage.base import Storage

COMMITTED = "committed"  # with a manifest that is in force
UNMANAGED = "unmanaged"  # a plain TensorFlow checkpoint
QUARANTINED = "quarantined"  # failed to restore, and has not changed since
DAMAGED = "damaged"  # its manifest or index is damaged or missing, or a file is cut off
DELETED = "deleted"  # plain TensorFlow has deleted it, except for its manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A checkpoint.

    Attributes:
      name: Its name.
      state: COMMITTED, UNMANAGED, QUARANTINED, DAMAGED or DELETED.
      problem: Why it is quarantined, damaged or deleted; else "".
      bytes: The size of all its files except the manifest.
      newest: Whether a restore would take it first.
      listed: Whether retention manages it.
      manifest: Its manifest, without the tensors, if it has one that can be read. That of a damaged
        checkpoint says what was saved.
      time: When it was saved, in seconds since 1970; None if unknown.
      pin: Its pin, if it is pinned.
      leases: The leases of its readers.
      why: Why retention keeps or will delete it; "" if the rules are unknown.
    """

    name: str
    state: str
    problem: str
    bytes: int
    newest: bool
    listed: bool
    manifest: Manifest | None
    time: float | None
    pin: Pin | None
    leases: tuple[Lease, ...]
    why: str = ""

    @property
    def step(self) -> int | None:
        """The training step; None if unknown."""
        return self.manifest.step if self.manifest else None

    def to_json(self) -> dict[str, Any]:
        """Returns what ``distckpt ls --json`` prints."""
        m = self.manifest
        return {
            "name": self.name,
            "state": self.state,
            "problem": self.problem,
            "step": self.step,
            "time": self.time,
            "bytes": self.bytes,
            "workers": len(m.workers) if m else None,
            "seconds": m.seconds if m else None,
            "term": m.term if m else None,
            "metrics": {k: v if math.isfinite(v) else str(v) for k, v in m.metrics.items()}
            if m
            else {},
            "newest": self.newest,
            "listed": self.listed,
            "pinned": dataclasses.asdict(self.pin) if self.pin else None,
            "leases": [dataclasses.asdict(lease) for lease in self.leases],
            "why": self.why,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A save in progress, or its leftovers.

    Attributes:
      name: The checkpoint being saved.
      folder: The name of its pending folder.
      term: The term of the process that began it.
      running: Whether that process may still be running.
      bytes: The size of its folder so far.
    """

    name: str
    folder: str
    term: int
    running: bool
    bytes: int


@dataclasses.dataclass(frozen=True)
class Inventory:
    """A directory at one moment.

    Attributes:
      items: The checkpoints, by name and number.
      unfinished: Saves in progress, by age.
      owner: The process that saves there, or was the last to save; None if none ever has.
      rules: The job's retention in words; "" if unknown.
      set_aside: The folders of rollbacks, oldest first.
    """

    items: tuple[Item, ...]
    unfinished: tuple[Unfinished, ...]
    owner: Owner | None
    rules: str
    set_aside: tuple[SetAside, ...]


def take(storage: Storage, directory: str, now: float) -> Inventory:
    """Returns the content of a directory.

    Args:
      storage: Where it is.
      directory: Its absolute path or URL.
      now: The time, in seconds since 1970.

    Raises:
      OSError: The directory cannot be read.
    """
    catalog = Catalog.for_a_look(storage, directory)
    who = owner_record.find(storage, directory)
    view = catalog.view(now)
    found = _Items(storage, directory, catalog, view, now).all()
    items, rules = _explain(found, catalog, view, now)
    pending = catalog.listing().pending
    running = tuple(_unfinished(storage, directory, one, who) for one in pending)
    folders = set_aside.look(storage, directory, catalog.listing().others)
    return Inventory(items, running, who, rules, folders)


class _Items:
    """Makes the items for the checkpoints of a directory."""

    def __init__(
        self, storage: Storage, directory: str, catalog: Catalog, view: View, now: float
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._catalog = catalog
        self._found = catalog.listing().checkpoints
        self._now = now
        self._listed = {kept.name: kept.timestamp for kept in view.active}
        self._quarantined = catalog.quarantined()
        self._holds = Holds(storage, directory).all()

    def all(self) -> tuple[Item, ...]:
        items = [self._item(name) for name in self._found if self._is_one(name)]
        newest = self._newest({item.name for item in items if item.state in (COMMITTED, UNMANAGED)})
        return tuple(dataclasses.replace(item, newest=item.name == newest) for item in items)

    def _newest(self, good: set[str]) -> str | None:
        """Returns the checkpoint that a restore would take, of those that look good."""
        try:
            order = self._catalog.candidates(self._now)
        except DistckptError:
            return None
        return next((name for name in order if name in good), None)

    def _is_one(self, name: str) -> bool:
        """Data files alone do not count: plain TensorFlow may be writing them."""
        return self._found[name].has_index or self._found[name].has_manifest

    def _item(self, name: str) -> Item:
        manifest, problem = damage.of(self._storage, self._directory, name, self._catalog)
        state = UNMANAGED if manifest is None else COMMITTED
        if damage.is_deleted(name, self._catalog):
            state, problem = DELETED, damage.DELETED
        elif problem:
            state = DAMAGED
        elif name in self._quarantined:
            state, problem = QUARANTINED, self._quarantined[name]
        held = [hold for hold in self._holds if hold.name == name]
        leases = (hold for hold in held if isinstance(hold, Lease) and hold.holds(self._now))
        return Item(
            name=name,
            state=state,
            problem=problem,
            bytes=manifest.bytes if manifest and state != DELETED else self._size(name),
            newest=False,
            listed=name in self._listed,
            manifest=manifest,
            time=manifest.committed_at if manifest else self._listed.get(name),
            pin=next((hold for hold in held if isinstance(hold, Pin)), None),
            leases=tuple(leases),
        )

    def _size(self, name: str) -> int:
        found = self._found[name]
        files = [*found.data, *found.workers, *([layout.index_name(name)] * found.has_index)]
        return sum(size_of(self._storage, layout.join(self._directory, file)) for file in files)


def _explain(
    items: Sequence[Item], catalog: Catalog, view: View, now: float
) -> tuple[tuple[Item, ...], str]:
    """Adds to each item why it is kept or deleted, by the rules in the newest manifest."""
    newest = max((i.manifest for i in items if i.manifest), key=lambda m: m.order, default=None)
    rules = newest.retention if newest else None
    why = keep_reasons.explain(items, rules, view, catalog.verified(), now)
    explained = tuple(
        dataclasses.replace(item, why="" if item.state == DELETED else why[item.name])
        for item in items
    )
    return explained, keep_reasons.describe(rules) if rules is not None else ""


def _unfinished(
    storage: Storage, directory: str, pending: attempts.Pending, who: Owner | None
) -> Unfinished:
    term = pending.attempt.term
    folder = layout.join(directory, pending.folder)
    return Unfinished(
        name=pending.checkpoint,
        folder=pending.folder,
        term=term,
        running=who is not None and who.may_still_save(term),
        bytes=sum(size_of(storage, layout.join(folder, f)) for f in storage.list(folder)),
    )


def size_of(storage: Storage, path: str) -> int:
    """Returns the size of a file; 0 if it was removed meanwhile, or is not a file."""
    try:
        return storage.size(path)
    except OSError:
        return 0
