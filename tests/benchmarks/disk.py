"""The disk between two measurements: sizes, removal, and waiting until write-back has ended."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

_QUIET_BYTES = 8 * 2**20
_PATIENCE = 60.0  # seconds


def settle(patience: float = _PATIENCE) -> bool:
    """Writes back what is dirty, of the whole machine; returns whether that came to an end."""
    deadline = time.monotonic() + patience
    while True:
        # Nothing can interrupt a sync, so a thread may be left behind with it.
        sync = threading.Thread(target=os.sync, daemon=True)
        sync.start()
        sync.join(max(0.0, deadline - time.monotonic()))
        if not sync.is_alive() and unwritten_bytes() <= _QUIET_BYTES:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)


def unwritten_bytes() -> int:
    """Returns how much of the page cache is dirty or on its way to the disk."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(1024 * int(fields[name].split()[0]) for name in ("Dirty", "Writeback"))


def sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of all files below `folder`, by what they are in a checkpoint."""
    found = {"data": 0, "index": 0, "other": 0}
    for path in _files(folder):
        kind = "data" if ".data-" in path.name else "index" if path.suffix == ".index" else "other"
        found[kind] += path.stat().st_size
    return found


def remove_checkpoints(folder: Path, prefix: str) -> None:
    """Removes the files below `folder` whose names begin with `prefix`."""
    for path in _files(folder):
        if path.name.startswith(prefix):
            path.unlink()


def file_system(folder: Path) -> str:
    """Returns the type of the file system that `folder` is on, and its device."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        inside = folder.resolve().is_relative_to(point.replace("\\040", " "))
        if inside and len(point) >= len(best[0]):
            best = (point, f"{kind} on {device}")
    return best[1]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
