"""What stands in a directory, for people to look at. Any process; never writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from distckpt.core import layout, retention
from distckpt.core.holds import Lease, Pin
from distckpt.core.layout import Listing
from distckpt.core.manifest import Manifest
from distckpt.core.retention import Kept
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.keep import Checkpoint, parse
from distckpt.roles import owner
from distckpt.roles.catalog import Catalog, View
from distckpt.roles.holds import Holds
from distckpt.roles.owner import Owner
from distckpt.roles.patient import PatientReader
from distckpt.storage.base import Storage

COMMITTED = "committed"  # with a manifest that is in force
UNMANAGED = "unmanaged"  # a plain TensorFlow checkpoint
QUARANTINED = "quarantined"  # failed to restore, and has not changed since
DAMAGED = "damaged"  # its manifest or its index is not to be trusted, or missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A checkpoint.

    Attributes:
      name: Its name.
      state: COMMITTED, UNMANAGED, QUARANTINED or DAMAGED.
      problem: Why it is quarantined or damaged; else "".
      bytes: Of all its files but the manifest.
      newest: Whether a restore would take it first.
      listed: Whether retention manages it.
      manifest: Its manifest in force, without the tensors, if it has one that can be read.
      time: When it was saved, in seconds since 1970; None if nothing says.
      pin: Who has pinned it.
      leases: Who is reading it.
      why: Why retention keeps it, or will let it go; "" if nothing says how.
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
        """The training step; None if nothing says."""
        return self.manifest.step if self.manifest else None

    def to_json(self) -> dict[str, Any]:
        """Returns what ``distckpt ls --json`` prints of it."""
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
            "epoch": m.epoch if m else None,
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
    """A save in progress, or what is left of one.

    Attributes:
      name: The checkpoint to be.
      folder: The name of its pending folder.
      epoch: Of the process that has begun it.
      running: Whether that process may still be running.
      bytes: In its folder so far.
    """

    name: str
    folder: str
    epoch: int
    running: bool
    bytes: int


@dataclasses.dataclass(frozen=True)
class Inventory:
    """A directory at one moment.

    Attributes:
      items: The checkpoints, by name and number.
      unfinished: Saves in progress, by age.
      owner: Who saves there, or did last; None if nobody ever has.
      rules: What the job keeps, as people read it; "" if nothing says.
    """

    items: tuple[Item, ...]
    unfinished: tuple[Unfinished, ...]
    owner: Owner | None
    rules: str


def take(storage: Storage, directory: str, now: float) -> Inventory:
    """Returns what stands in a directory.

    Args:
      storage: Where it is.
      directory: Its absolute path or URL.
      now: The time, in seconds since 1970.

    Raises:
      OSError: The directory cannot be read.
    """
    catalog = Catalog(PatientReader(storage), directory, brief=True)
    listing = layout.classify(storage.list(directory))
    who = owner.find(storage, directory)
    items = _Items(storage, directory, catalog, listing, now).all()
    items, rules = _explain(items, catalog, now)
    running = tuple(_unfinished(storage, directory, pending, who) for pending in listing.pending)
    return Inventory(items, running, who, rules)


class _Items:
    """Looks at the checkpoints of a listing."""

    def __init__(
        self, storage: Storage, directory: str, catalog: Catalog, listing: Listing, now: float
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._catalog = catalog
        self._found = listing.checkpoints
        self._now = now
        self._view: View = catalog.view(now)
        self._quarantined = catalog.quarantined()
        self._holds = Holds(storage, directory).all()

    def all(self) -> tuple[Item, ...]:
        return tuple(self._item(name) for name in self._found if self._is_one(name))

    def _is_one(self, name: str) -> bool:
        """Data files alone are none: they may be of a save of plain TensorFlow in progress."""
        return self._found[name].has_index or self._found[name].has_manifest

    def _item(self, name: str) -> Item:
        manifest, problem = self._manifest(name)
        state = UNMANAGED if manifest is None else COMMITTED
        if problem:
            state = DAMAGED
        elif name in self._quarantined:
            state, problem = QUARANTINED, self._quarantined[name]
        listed = {kept.name: kept.timestamp for kept in self._view.active}
        held = [hold for hold in self._holds if hold.name == name]
        leases = (hold for hold in held if isinstance(hold, Lease) and hold.holds(self._now))
        return Item(
            name=name,
            state=state,
            problem=problem,
            bytes=manifest.bytes if manifest else self._size(name),
            newest=name == self._view.latest,
            listed=name in listed,
            manifest=manifest,
            time=manifest.committed_at if manifest else listed.get(name),
            pin=next((hold for hold in held if isinstance(hold, Pin)), None),
            leases=tuple(leases),
        )

    def _manifest(self, name: str) -> tuple[Manifest | None, str]:
        """Returns the manifest in force, and what is wrong with the checkpoint."""
        if not self._found[name].has_index:
            return None, f"{layout.index_name(name)} is missing"
        try:
            return self._catalog.manifest(name), ""
        except DistckptError as error:
            return None, str(error)

    def _size(self, name: str) -> int:
        found = self._found[name]
        files = [*found.data, *found.workers, *([layout.index_name(name)] * found.has_index)]
        return sum(size_of(self._storage, layout.join(self._directory, file)) for file in files)


def _explain(items: Sequence[Item], catalog: Catalog, now: float) -> tuple[tuple[Item, ...], str]:
    """Says of each item why it stays or goes, by the rules in the newest manifest."""
    newest = max((i.manifest for i in items if i.manifest), key=lambda m: m.order, default=None)
    rules = newest.retention if newest else None
    reasons: dict[str, list[str]] = {item.name: _held(item) for item in items}
    listed = [item for item in items if item.listed]
    listed.sort(key=lambda item: item.time or 0.0)
    text = ""
    if rules is not None:
        text = describe(rules.max_to_keep, rules.every_hours, rules.keep)
        most = 1 if rules.max_to_keep is None and rules.keep else rules.max_to_keep
        for item in listed[-most:] if most else listed:
            reasons[item.name].append(f"one of the {most} newest" if most else "all are kept")
        for name, why in _kept(rules.keep, facts(listed, catalog), now).items():
            reasons[name].append(why)
    explained = tuple(
        dataclasses.replace(item, why=_why(item, reasons[item.name], rules is not None))
        for item in items
    )
    return explained, text


def facts(listed: Sequence[Item], catalog: Catalog) -> list[Checkpoint]:
    """Returns what a policy may know of checkpoints, given oldest first."""
    verified = catalog.verified()
    return [
        retention.facts(Kept(i.name, i.time or 0.0), i.manifest, verified=i.name in verified)
        for i in listed
    ]


def describe(max_to_keep: int | None, every_hours: float | None, keep: str) -> str:
    """Returns the rules of retention as people read them."""
    parts = [f"max_to_keep={max_to_keep}"]
    if every_hours:
        parts.append(f"keep_checkpoint_every_n_hours={every_hours:g}")
    if keep:
        parts.append(f"keep={keep}")
    return ", ".join(parts)


def _kept(keep: str, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
    if not keep:
        return {}
    try:
        return parse(keep).reasons(checkpoints, now)
    except ConfigurationError:  # a policy of the user's own
        return {c.name: f"{keep} decides" for c in checkpoints}


def _held(item: Item) -> list[str]:
    reasons = []
    if item.pin is not None:
        reasons.append("pinned" + (f" ({item.pin.reason})" if item.pin.reason else ""))
    reasons += [f"being read on {lease.host} (pid {lease.pid})" for lease in item.leases]
    return reasons


def _why(item: Item, reasons: list[str], known: bool) -> str:
    if item.state in (QUARANTINED, DAMAGED):
        return "not counted, and never deleted: it may be of use to whoever repairs it"
    if reasons:
        return "; ".join(reasons)
    if not item.listed:
        return "not managed: never deleted"
    return "goes with the next save" if known else ""


def _unfinished(
    storage: Storage, directory: str, pending: layout.Pending, who: Owner | None
) -> Unfinished:
    epoch = pending.attempt.epoch
    folder = layout.join(directory, pending.folder)
    return Unfinished(
        name=pending.checkpoint,
        folder=pending.folder,
        epoch=epoch,
        running=who is not None and who.epoch <= epoch and who.may_run,
        bytes=sum(size_of(storage, layout.join(folder, f)) for f in storage.list(folder)),
    )


def size_of(storage: Storage, path: str) -> int:
    """Returns the size of a file; 0 if it has gone meanwhile, or is none."""
    try:
        return storage.size(path)
    except OSError:
        return 0
