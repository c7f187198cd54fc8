"""Divides one worker's share into parts, written at the same time, each to a file of its own.

One ``SaveV2`` uses one core; a part's flush goes on while others are written; and the values of a
part are let go of as soon as it is written. But each part is one more file of the checkpoint.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from distckpt.core.plan import Piece

# There is no second part below this size: 64 MiB take a core some 30 ms.
LEAST = 64 * 2**20
# One of more than twice this size is divided further, to be let go of sooner.
MOST = 256 * 2**20
# So many parts at the most, of one worker and of all.
OF_ONE, OF_ALL = 32, 1024


def divide(share: Sequence[Piece], workers: int, threads: int) -> tuple[tuple[Piece, ...], ...]:
    """Returns the parts of a worker's share, balanced by bytes; in each the order is kept.

    Args:
      share: What the worker writes. None is empty but of an empty share.
      workers: How many workers there are.
      threads: How many parts are written at the same time; with 1 there is one part.
    """
    total = sum(piece.nbytes for piece in share)
    count = max(min(threads, total // LEAST), total // MOST if threads > 1 else 1)
    count = min(count, OF_ONE, max(1, OF_ALL // workers), len(share))
    if count <= 1:
        return (tuple(share),)
    loads = [(0, part) for part in range(count)]
    members: list[list[int]] = [[] for _ in range(count)]
    for position in sorted(range(len(share)), key=lambda n: -share[n].nbytes):
        load, part = heapq.heappop(loads)
        members[part].append(position)
        heapq.heappush(loads, (load + share[position].nbytes, part))
    return tuple(tuple(share[n] for n in sorted(numbers)) for numbers in members)
