"""The checkpoints of a directory, as their manifests tell it, in a table."""

from __future__ import annotations

import time
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from distckpt.core import manifest_json
from distckpt.core.manifest import Manifest


class Checkpoints:
    """All checkpoints that have been seen in a directory, those that were pruned since included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[tuple[int, int], Manifest] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def look(self) -> None:
        """Reads the manifests that are there now; each is the proof that a save was committed."""
        for path in self._directory.glob("*.manifest.json"):
            try:
                found = manifest_json.parse(path.read_bytes(), str(path))
            except FileNotFoundError:
                continue  # pruned this very moment
            self._seen[found.order] = found

    def table(self) -> Table:
        """Returns the table, oldest checkpoint first."""
        table = Table(title="Committed checkpoints", title_justify="left")
        for name in ("Checkpoint", "Step", "Workers", "Bytes per worker", "Seconds per worker"):
            table.add_column(name, justify="left" if name == "Checkpoint" else "right")
        table.add_column("Committed at")
        table.add_column("On disk")
        for order in sorted(self._seen):
            table.add_row(*self._row(self._seen[order]))
        return table

    def _row(self, found: Manifest) -> list[str]:
        kept = (self._directory / f"{found.name}.manifest.json").exists()
        return [
            found.name,
            str(found.step),
            str(len(found.workers)),
            " + ".join(decimal(worker.bytes) for worker in found.workers),
            " + ".join(f"{worker.seconds:.3f}" for worker in found.workers),
            time.strftime("%H:%M:%S", time.localtime(found.committed_at)),
            "yes" if kept else "pruned",
        ]
