"""The floor: plain writes of the same bytes, flushed ("durable") or not ("plain")."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from serve import Library, serve


class Floor(Library):
    """One file, written in one go."""

    prunes = False

    def __init__(self, settings: dict[str, Any]) -> None:
        self._index, self._count = settings["index"], settings["count"]
        self._folder = Path()
        self._bytes = memoryview(b"")

    def versions(self) -> dict[str, str]:
        return {}

    def build(self, state: dict[str, Any], folder: Path, fresh: bool) -> int:
        self._folder = folder
        nbytes = sum(4 * math.prod(shape) for _, shape in state["entries"])
        own = nbytes // self._count
        self._bytes = memoryview(os.urandom(2**20) * (own // 2**20) + os.urandom(own % 2**20))
        return nbytes

    def compute(self, times: int) -> None:
        pass

    def update(self) -> None:
        pass

    def save(self, variant: str, number: int) -> None:
        folder = self._folder / variant
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"ckpt-{number}.data-{self._index:05d}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        left = self._bytes
        while left:
            left = left[os.write(file, left) :]
        if variant == "durable":
            os.fsync(file)
        os.close(file)

    def wait(self) -> None:
        pass

    def landed(self) -> bool:
        return True

    def restore(self, variant: str, number: int) -> None:
        path = self._folder / variant / f"ckpt-{number}.data-{self._index:05d}"
        buffer = bytearray(path.stat().st_size)
        with path.open("rb", buffering=0) as file:
            assert file.readinto(buffer) == len(buffer) or len(buffer) > 2**31 - 4097

    def first_elements(self) -> list[float]:
        return []


if __name__ == "__main__":
    serve(Floor)
