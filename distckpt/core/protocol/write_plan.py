"""The write plan: divides the tensor entries of a state between the workers, by bytes.

Pure and deterministic: every worker makes its own plan from the same entries and gets the
same plan, which `Plan.fingerprint` proves. The idea of balancing a replicated state by bytes over
its replicas is torchsnapshot's and Orbax's; splitting one tensor between files is TensorFlow's own
``SaveV2`` with slice specs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import heapq
import json
import operator
import zlib
from collections.abc import Collection, Iterable, Sequence

import msgspec

from distckpt.core.tensorflow_format.dtypes import BY_NUMBER

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"

# A smaller entry is never split: a slice costs one more index record and one more read.
MIN_SPLIT_BYTES = 16 * 1024
# A worker may be this much over its fair share before an entry is split to relieve it.
SLACK = 0.03
# The size counted for an index record, so that many empty or tiny entries spread out, too.
RECORD_BYTES = 64

# The groups of entries whose hashes are in a fingerprint, by key, and the digits of each hash.
BUCKETS = 256
_DIGITS = 4
# A refusal tells of no more groups when it has so many entries.
MOST_DIFFERING = 1000

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


_FIXED_SIZE = frozenset(dtype.name for dtype in BY_NUMBER.values() if dtype.size is not None)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a state.

    There may be many: a structure of msgspec is made ten times faster than a dataclass.

    Attributes:
      key: The checkpoint key.
      dtype: TensorFlow's name of the type, e.g. "float32".
      shape: The dimensions; for an entry with a `spec`, those of the slice.
      nbytes: Size of the value in bytes. For types of variable size it is an estimate, and 0 if the
        size may differ between workers (the division must not depend on it).
      chief_only: True if value and shape need not be equal on all workers: the chief's value is
        saved.
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
        """The properties that must be equal on all workers."""
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


class Piece(msgspec.Struct, frozen=True, gc=False):
    """The part of one entry that one worker writes: all of it, or rows `start` up to `stop`.

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
        """Tells this piece from every other of the same plan."""
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
        """Equal on two workers exactly when their entries and number of workers are equal.

        It consists of a hash of all entries, and short hashes of `BUCKETS` groups of them, which
        tell the groups in which two plans differ.
        """
        rows: list[list[tuple[object, ...]]] = [[] for _ in range(BUCKETS)]
        for entry in self.entries:
            rows[_bucket(entry)].append(entry.common)
        hashes = [_hash(some) for some in rows]
        whole = hashlib.sha256(b"".join([str(self.workers).encode(), *hashes])).hexdigest()
        return whole + "".join(one.hex()[:_DIGITS] for one in hashes)

    def differing(self, fingerprint: str) -> tuple[int, ...]:
        """Returns the groups in which this plan differs from one with `fingerprint`.

        Returns only as many as have `MOST_DIFFERING` of this plan's entries, but at least one: to
        name the first differences, not all entries need to be sent. Returns all groups if no short
        hash differs.
        """
        sizes = collections.Counter(map(_bucket, self.entries))
        mine, theirs = (text[-BUCKETS * _DIGITS :] for text in (self.fingerprint, fingerprint))
        found: list[int] = []
        for bucket in range(BUCKETS):
            digits = slice(bucket * _DIGITS, (bucket + 1) * _DIGITS)
            if mine[digits] != theirs[digits]:
                found.append(bucket)
                if sum(sizes[one] for one in found) >= MOST_DIFFERING:
                    break
        return tuple(found or range(BUCKETS))

    def of_buckets(self, buckets: Collection[int]) -> tuple[Entry, ...]:
        """Returns the entries of these groups."""
        return tuple(entry for entry in self.entries if _bucket(entry) in buckets)

    @functools.cached_property
    def digests(self) -> tuple[bytes, ...]:
        """For each worker, the `digest` of what a correct report of its share says."""
        return tuple(
            digest((p.entry.key, p.spec, p.entry.dtype, p.shape) for p in share)
            for share in self.shares
        )

    @functools.cached_property
    def collective(self) -> bool:
        """Whether some value must be read by all workers together."""
        return any(e.collective for e in self.entries)

    @functools.cached_property
    def mirrored(self) -> tuple[tuple[int, Piece], ...]:
        """The mirrored pieces, each with its writer; the largest first.

        Omits values that need a collective read, and values of variable size (strings).
        """
        found = [
            (writer, piece)
            for writer, share in enumerate(self.shares)
            for piece in share
            if not (piece.entry.chief_only or piece.entry.collective)
            and piece.entry.dtype in _FIXED_SIZE
        ]
        found.sort(key=lambda item: (-item[1].nbytes, item[1].identity))
        return tuple(found)

    @functools.cached_property
    def bytes_per_worker(self) -> tuple[int, ...]:
        """Bytes of tensors that each worker writes."""
        return tuple(sum(p.nbytes for p in share) for share in self.shares)


def digest(pieces: Iterable[tuple[str, str, str, tuple[int, ...]]]) -> bytes:
    """Returns a hash of pieces, given as (key, spec, dtype, shape) in any order."""
    return _hash(sorted(pieces))


def _hash(rows: Sequence[object]) -> bytes:
    try:
        text = msgspec.json.encode(rows)
    except UnicodeEncodeError:  # foreign keys
        text = json.dumps(rows).encode()
    return hashlib.sha256(text).digest()


def _bucket(entry: Entry) -> int:
    return zlib.crc32(entry.key.encode("utf-8", "surrogatepass")) % BUCKETS


def make_plan(entries: Sequence[Entry], workers: int) -> Plan:
    """Returns the plan for `entries` on `workers` workers.

    The chief takes the entries that only it may write. The others are given out, large ones first,
    each to the worker with the least load. An entry that would overflow a worker is cut there,
    along its first axis. Only if that leaves a worker with too much, uncuttable entries are given
    out before cuttable ones: this is better balanced, but needs more cuts, and capturing a part of
    a tensor copies it.
    """
    ordered = tuple(sorted(entries, key=operator.attrgetter("key", "spec")))
    if workers == 1:
        return Plan(ordered, (tuple(Piece(e) for e in ordered),))
    free = [i for i, e in enumerate(ordered) if not e.chief_only]
    free.sort(key=lambda i: -ordered[i].nbytes)
    large = [i for i in free if ordered[i].nbytes >= MIN_SPLIT_BYTES]
    division = _Division(ordered, workers)
    division.fill(large)
    if division.most > division.limit:
        other = _Division(ordered, workers)
        other.give([i for i in large if not ordered[i].sliceable])
        other.fill([i for i in large if ordered[i].sliceable])
        division = min(division, other, key=lambda d: d.most)
    division.give(free[len(large) :], cost=RECORD_BYTES)
    return Plan(ordered, division.shares())


class _Division:
    """Gives out pieces: each goes to the worker with the least load, the first of several.

    Entries are identified by their positions in `Plan.entries`.

    Args:
      entries: The entries of the plan. The chief has its own entries from the beginning.
      workers: How many workers there are.
    """

    def __init__(self, entries: Sequence[Entry], workers: int) -> None:
        self._entries = entries
        # Each piece has its position and its first row, by which shares are sorted.
        self._given: list[list[tuple[int, int, Piece]]] = [[] for _ in range(workers)]
        own = [(i, 0, Piece(e)) for i, e in enumerate(entries) if e.chief_only]
        self._given[0] += own
        self._own = sum(piece.nbytes for _, _, piece in own)
        self._loads = [(self._own, 0), *((0, worker) for worker in range(1, workers))]
        heapq.heapify(self._loads)
        self.limit = 0.0

    @property
    def most(self) -> int:
        """The load of the worker with the most."""
        return max(self._loads)[0]

    def give(self, positions: Iterable[int], cost: int = 0) -> None:
        """Gives out whole entries, each counted as `cost` bytes more than its size."""
        for position in positions:
            entry = self._entries[position]
            self._give(position, 0, Piece(entry), entry.nbytes + cost)

    def fill(self, positions: Iterable[int]) -> None:
        """Gives out entries; an entry that would overflow a worker is cut there, if possible.

        Sets `limit` to the most that any worker should have when nothing is left.
        """
        loads = [load for load, _ in self._loads]
        level = _water_level(loads, sum(e.nbytes for e in self._entries) - sum(loads))
        slack = SLACK * level
        self.limit = max(self._own, level + slack)
        for position in positions:
            entry = self._entries[position]
            if entry.sliceable:
                self._pour(position, level, slack)
            else:
                self._give(position, 0, Piece(entry), entry.nbytes)

    def _pour(self, position: int, level: float, slack: float) -> None:
        """Gives out an entry, up to `level` to each worker; `slack` more if that finishes it."""
        entry = self._entries[position]
        row = entry.nbytes // entry.shape[0]
        start, end = 0, entry.shape[0]
        while start < end:
            room = level - self._loads[0][0]
            stop = end
            if (end - start) * row > room + slack:
                stop = start + max(1, min(end - start, int(room // row)))
            whole = stop - start == end
            piece = Piece(entry, None if whole else (start, stop))
            self._give(position, start, piece, (stop - start) * row)
            start = stop

    def _give(self, position: int, start: int, piece: Piece, cost: int) -> None:
        load, worker = self._loads[0]
        heapq.heapreplace(self._loads, (load + cost, worker))
        self._given[worker].append((position, start, piece))

    def shares(self) -> tuple[tuple[Piece, ...], ...]:
        """Returns the pieces of each worker, in the order of the entries."""
        return tuple(tuple(piece for _, _, piece in sorted(given)) for given in self._given)


def _water_level(loads: Sequence[int], amount: int) -> float:
    """Returns the level reached when `amount` more bytes fill up the lowest loads first."""
    ordered, level = sorted(loads), 0.0
    for count, load in enumerate(ordered, start=1):
        amount += load
        level = amount / count
        if count == len(ordered) or level <= ordered[count]:
            break
    return level


def first_differences(mine: Sequence[Entry], theirs: Sequence[Entry], most: int = 3) -> list[str]:
    """Returns a line for each of the first few entries that differ between two workers.

    Args:
      mine: The chief's entries.
      theirs: The other worker's entries.
      most: The maximum number of lines.
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
