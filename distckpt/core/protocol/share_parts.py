"""Divides one worker's share into parts that are written in parallel, each to its own file.

Writing a part uses one core; one part is flushed while others are written; and the values of a part
are released as soon as it is written. But each part is one more file of the checkpoint.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from distckpt.core.protocol.write_plan import Piece

# A smaller share is not divided: 64 MiB take a core some 30 ms.
LEAST = 64 * 2**20
# A part of more than twice this size is divided further, to be released sooner.
MOST = 256 * 2**20
# The most parts of one worker, and of all workers.
OF_ONE, OF_ALL = 32, 1024


def divide(share: Sequence[Piece], workers: int, threads: int) -> tuple[tuple[Piece, ...], ...]:
    """Returns the parts of a worker's share, balanced by bytes; in each the order is kept.

    Args:
      share: What the worker writes. No part is empty unless the share is.
      workers: How many workers there are.
      threads: How many parts are written in parallel; with 1 there is one part.
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
