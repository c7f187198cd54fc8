"""Who writes what: divides the tensor entries of a state between the workers, by bytes.

Pure and deterministic: every worker makes the plan for itself from the same entries and gets the
same one, which `Plan.fingerprint` proves. The idea of balancing a replicated state by bytes over
its replicas is torchsnapshot's and Orbax's; splitting one tensor between files is TensorFlow's own
``SaveV2`` with slice specs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import json
from collections.abc import Callable, Sequence

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

# Below this an entry is never split: a slice costs one more index record and one more read.
MIN_SPLIT_BYTES = 16 * 1024
# A worker may be this much over its fair share before an entry is split to relieve it.
SLACK = 0.03

# The types whose slices `BundleReader::GetSliceValue` (tensor_bundle.cc) can put together again.
SLICEABLE_DTYPES = frozenset(
    {
        "bool",
        "float32",
        "float64",
        "bfloat16",
        "complex64",
        "complex128",
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
    }
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a state.

    Attributes:
      key: The checkpoint key.
      dtype: TensorFlow's name of the type, e.g. "float32".
      shape: The dimensions; for an entry with a `spec`, those of the slice.
      nbytes: Size of the value in bytes; for types of variable size an estimate, and 0 for what may
        differ in size between workers (the division must not depend on it).
      chief_only: True for what need not be equal on all workers, nor of one shape: the chief's
        value is saved.
      spec: A slice spec that the object itself asked for (a partitioned variable), or "".
      collective: True if all workers must read it together (``synchronization=ON_READ``).
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    chief_only: bool = False
    spec: str = ""
    collective: bool = False

    @property
    def common(self) -> tuple[object, ...]:
        """What must be equal on all workers."""
        shape = None if self.chief_only else self.shape
        rest = (self.nbytes, self.chief_only, self.spec, self.collective)
        return (self.key, self.dtype, shape, *rest)

    @property
    def sliceable(self) -> bool:
        """Whether the entry may be divided along its first axis."""
        return (
            self.dtype in SLICEABLE_DTYPES
            and not self.spec
            and not self.chief_only
            and bool(self.shape)
            and self.shape[0] > 1
            and self.nbytes >= MIN_SPLIT_BYTES
        )


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one worker writes of one entry: all of it, or rows `start` up to `stop`.

    Attributes:
      entry: The entry.
      rows: (start, stop) along the first axis, or None for the whole entry.
    """

    entry: Entry
    rows: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the piece in bytes."""
        if self.rows is None:
            return self.entry.nbytes
        return (self.rows[1] - self.rows[0]) * (self.entry.nbytes // self.entry.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions of the piece."""
        if self.rows is None:
            return self.entry.shape
        return (self.rows[1] - self.rows[0], *self.entry.shape[1:])

    @property
    def spec(self) -> str:
        """The slice spec for ``SaveV2``: "" or e.g. "6 4 4,2:-" (shape, then start,length)."""
        if self.rows is None:
            return self.entry.spec
        dims = " ".join(str(d) for d in self.entry.shape)
        ranges = [f"{self.rows[0]},{self.rows[1] - self.rows[0]}"]
        ranges += ["-"] * (len(self.entry.shape) - 1)
        return f"{dims} {':'.join(ranges)}"

    @property
    def identity(self) -> tuple[str, str]:
        """What tells this piece from every other of the same plan."""
        return (self.entry.key, self.spec)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The division of one state between `workers` workers.

    Attributes:
      entries: All entries, sorted by key and spec.
      shares: For each worker, by index, its pieces in the order of `entries`.
    """

    entries: tuple[Entry, ...]
    shares: tuple[tuple[Piece, ...], ...]

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self.shares)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Equal on two workers exactly when their entries and number of workers are equal."""
        rows = [e.common for e in self.entries]
        text = json.dumps([self.workers, rows], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def collective(self) -> bool:
        """Whether some value must be read by all workers together."""
        return any(e.collective for e in self.entries)

    @property
    def bytes_per_worker(self) -> tuple[int, ...]:
        """Bytes of tensors that each worker writes."""
        return tuple(sum(p.nbytes for p in share) for share in self.shares)


Give = Callable[[int, Piece], None]


def make_plan(entries: Sequence[Entry], workers: int) -> Plan:
    """Returns the plan for `entries` on `workers` workers.

    The chief takes the entries that only it may write. The entries that cannot be split go, large
    ones first, to whoever has least. The others fill everybody up to the same level, and one that
    would overflow a worker is cut there, along its first axis.
    """
    ordered = tuple(sorted(entries, key=lambda e: (e.key, e.spec)))
    if workers == 1:
        return Plan(ordered, (tuple(Piece(e) for e in ordered),))
    loads = [0] * workers
    shares: list[list[Piece]] = [[] for _ in range(workers)]

    def give(worker: int, piece: Piece) -> None:
        shares[worker].append(piece)
        loads[worker] += piece.nbytes

    for entry in ordered:
        if entry.chief_only:
            give(0, Piece(entry))
    free = sorted(
        (e for e in ordered if not e.chief_only), key=lambda e: (-e.nbytes, e.key, e.spec)
    )
    for entry in (e for e in free if not e.sliceable and e.nbytes >= MIN_SPLIT_BYTES):
        give(loads.index(min(loads)), Piece(entry))
    level = _water_level(loads, sum(e.nbytes for e in free if _is_filler(e)))
    for entry in (e for e in free if e.sliceable):
        _pour(entry, level, loads, give)
    _spread([e for e in free if not e.sliceable and e.nbytes < MIN_SPLIT_BYTES], loads, give)
    position = {e: i for i, e in enumerate(ordered)}
    for share in shares:
        share.sort(key=lambda p: (position[p.entry], p.rows or (0, 0)))
    return Plan(ordered, tuple(tuple(share) for share in shares))


def _is_filler(entry: Entry) -> bool:
    return entry.sliceable or entry.nbytes < MIN_SPLIT_BYTES


def _water_level(loads: Sequence[int], amount: int) -> float:
    """Returns the load that all reach if `amount` more bytes fill up the lowest first."""
    level, ordered = 0.0, sorted(loads)
    for count in range(1, len(ordered) + 1):
        level = (sum(ordered[:count]) + amount) / count
        if count == len(ordered) or level <= ordered[count]:
            break
    return level


def _pour(entry: Entry, level: float, loads: list[int], give: Give) -> None:
    """Gives `entry` to those with least, cutting it where a worker is full."""
    row = entry.nbytes // entry.shape[0]
    start, stop = 0, entry.shape[0]
    while start < stop:
        worker = loads.index(min(loads))
        room = level - loads[worker]
        left = (stop - start) * row
        rows = stop - start
        if left > room + SLACK * level:
            rows = max(1, min(rows, int(room // row)))
        whole = start == 0 and rows == entry.shape[0]
        give(worker, Piece(entry, None if whole else (start, start + rows)))
        start += rows


def _spread(entries: Sequence[Entry], loads: list[int], give: Give) -> None:
    """Gives each of the small `entries` to whoever has least, counting a record's own cost."""
    record = 64  # bytes an index record takes: lets many empty or tiny entries spread out too
    heap = [(load, worker) for worker, load in enumerate(loads)]
    heapq.heapify(heap)
    for entry in entries:
        load, worker = heapq.heappop(heap)
        give(worker, Piece(entry))
        heapq.heappush(heap, (load + entry.nbytes + record, worker))


def first_differences(mine: Sequence[Entry], theirs: Sequence[Entry], most: int = 3) -> list[str]:
    """Returns a line for each of the first few entries that differ between two workers.

    Args:
      mine: The chief's entries.
      theirs: The other worker's.
      most: How many lines at the most.
    """
    ours = {(e.key, e.spec): e for e in mine}
    other = {(e.key, e.spec): e for e in theirs}
    lines = []
    for identity in sorted(ours.keys() | other.keys()):
        a, b = ours.get(identity), other.get(identity)
        if a is not None and b is not None and a.common == b.common:
            continue
        lines.append(f"{identity[0]}: {_describe(a)} on the chief, {_describe(b)} there")
        if len(lines) == most:
            break
    return lines


def _describe(entry: Entry | None) -> str:
    if entry is None:
        return "absent"
    kind = ", not mirrored" if entry.chief_only else ""
    kind += ", read on all" if entry.collective else ""
    return f"{entry.dtype}{list(entry.shape)}{kind}"
