"""Compares two checkpoints, tensor by tensor. Any process; never writes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distckpt.errors import CheckpointDamagedError
from distckpt.reading.tensors import Tensor, Tensors

if TYPE_CHECKING:
    from distckpt.core.tensorflow_format.tensor_values import Array

SAME, CHANGED, UNREADABLE, ONLY_LEFT, ONLY_RIGHT, OTHER_KIND = (
    "same",
    "changed",
    "cannot be read",
    "only in the first",
    "only in the second",
    "another type or shape",
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of one tensor.

    Attributes:
      key: Its checkpoint key.
      kind: SAME, CHANGED, UNREADABLE, ONLY_LEFT, ONLY_RIGHT or OTHER_KIND.
      left: The tensor in the first checkpoint; None if it is missing there.
      right: The same in the second.
      largest: The largest absolute difference of two elements, for numbers; infinite if only one of
        two elements is NaN.
      norm: The Euclidean norm of the difference.
      relative: `norm` divided by the norm of the first tensor.
      problem: The damage because of which the values are not compared; "" if there is none. It is
        CHANGED if the checksums show that, else UNREADABLE.
    """

    key: str
    kind: str
    left: Tensor | None
    right: Tensor | None
    largest: float | None = None
    norm: float | None = None
    relative: float | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns what ``distckpt diff --json`` prints."""

        def kind(tensor: Tensor | None) -> dict[str, Any] | None:
            return {"dtype": tensor.dtype, "shape": list(tensor.shape)} if tensor else None

        numbers = {"largest": self.largest, "norm": self.norm, "relative": self.relative}
        numbers = {
            k: v if v is None or math.isfinite(v) else str(v)  # type: ignore[misc]
            for k, v in numbers.items()
        }
        return {
            "key": self.key,
            "kind": self.kind,
            "left": kind(self.left),
            "right": kind(self.right),
            **numbers,
        }


def compare(left: Tensors, right: Tensors) -> Iterator[Difference]:
    """Yields a `Difference` for each tensor of either, by key; one pair is in memory at a time.

    Tensors whose checksums are equal are not read. Of a tensor that must be read and is damaged,
    only the checksums in the indexes are compared.

    Raises:
      OSError: A file cannot be read.
    """
    ours = {tensor.key: tensor for tensor in left.all()}
    theirs = {tensor.key: tensor for tensor in right.all()}
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if one is None or other is None:
            yield Difference(key, ONLY_RIGHT if one is None else ONLY_LEFT, one, other)
        elif (one.dtype, one.shape) != (other.dtype, other.shape):
            yield Difference(key, OTHER_KIND, one, other)
        elif one.content == other.content:
            yield Difference(key, SAME, one, other)
        else:
            yield _changed(left, right, one, other)


def by_size(difference: Difference) -> tuple[int, float, str]:
    """Returns a sort key: missing keys and other kinds first, then the largest relative change."""
    unlike = difference.kind in (ONLY_LEFT, ONLY_RIGHT, OTHER_KIND)
    relative = difference.relative
    return (not unlike, -math.inf if relative is None else -relative, difference.key)


def _changed(left: Tensors, right: Tensors, one: Tensor, other: Tensor) -> Difference:
    import numpy as np

    if one.dtype == "variant":
        return Difference(one.key, CHANGED, one, other)
    try:
        a, b = left.read(one), right.read(other)
    except CheckpointDamagedError as error:
        alike = sorted(p.spec for p in one.pieces) == sorted(p.spec for p in other.pieces)
        kind = CHANGED if alike else UNREADABLE  # checksums of other slices say nothing
        return Difference(one.key, kind, one, other, problem=str(error))
    if one.dtype == "string":
        kind = SAME if bool(np.array_equal(a, b)) else CHANGED
        return Difference(one.key, kind, one, other)
    if a.tobytes() == b.tobytes():  # only the slices differ
        return Difference(one.key, SAME, one, other)
    largest, norm, before = _measure(a, b)
    relative = norm / before if before else math.inf if norm else 0.0
    return Difference(one.key, CHANGED, one, other, largest, norm, relative)


def _measure(a: Array, b: Array) -> tuple[float, float, float]:
    """Returns the largest difference, the norm of the difference, and the norm of `a`."""
    import numpy as np

    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    with np.errstate(all="ignore"):
        x, y = a.astype(wide).ravel(), b.astype(wide).ravel()
        change = np.abs(x - y)
        change[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0  # infinities, too
        change[np.isnan(change)] = np.inf
        largest = float(change.max(initial=0.0))
        norm = float(np.linalg.norm(change))
        before = np.abs(x)
        return largest, norm, float(np.linalg.norm(before[np.isfinite(before)]))
