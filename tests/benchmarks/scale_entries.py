"""Measures what the chief, and readers, do with up to a million tensors on 64 workers.

    python tests/benchmarks/scale_entries.py

All times are processor times of one thread: reports and manifest are made and read as in a save,
but nothing is written. The checksums of the tensors are random, as real ones look, because they
take most of the manifest.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import report
from arguments import add_json
from scale_workers import entries_of
from summary import Figure, Finding

from distckpt.core import layout, manifest_json
from distckpt.core.manifest import EntryRecord, FileRecord, IndexRecord, Manifest
from distckpt.core.protocol import messages, report_checks
from distckpt.core.protocol.messages import Report, WrittenFile, WrittenPiece
from distckpt.core.protocol.write_plan import Plan, make_plan
from distckpt.directory.catalog import Catalog
from distckpt.runtime.gc_pause import paused
from distckpt.saving.manifest_builder import merged_entries
from distckpt.storage.local import LocalStorage

WORKERS = 64
ENTRIES = [10_000, 100_000, 1_000_000]
CHECKPOINTS, TENSORS = 1000, 10_000  # in the directory that is read
CHIEF = ("decode", "compare", "merge", "render")
# (what, the most, unit), for the largest case.
EXPECTED = (("chief", 5.0, "s"), ("manifest", 20e6, "bytes"), ("parse", 2.0, "s"))


def measure(count: int) -> dict[str, float]:
    """Returns the seconds and bytes of a save of `count` tensors."""
    with paused():
        plan = make_plan(entries_of(count), WORKERS)
        texts = list(_reports(plan))
        found: dict[str, float] = {"entries": count, "reports": sum(map(len, texts))}
        found["plan"] = _timed(lambda: (plan.fingerprint, plan.digests))[0]
        found["decode"], reports = _timed(lambda: list(map(messages.answer_from_json, texts)))
        found["compare"], wrong = _timed(
            lambda: [report_checks.unplanned(plan, report) for report in reports]
        )
        assert not any(wrong)
        found["merge"], entries = _timed(lambda: merged_entries(reports))
        found["render"], data = _timed(lambda: manifest_json.render(manifest(entries)))
        found["parse"], _ = _timed(lambda: manifest_json.parse(data))
        found["head"], _ = _timed(lambda: manifest_json.parse_head(data[: manifest_json.HEAD_SIZE]))
    found["manifest"] = len(data)
    found["chief"] = sum(found[name] for name in CHIEF)
    return found


def measure_directory(checkpoints: int, count: int) -> dict[str, float]:
    """Returns how long it takes to look at a directory of checkpoints, as a manager does first."""
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        reports = [messages.answer_from_json(t) for t in _reports(make_plan(entries_of(count), 1))]
        entries = merged_entries(reports)  # type: ignore[arg-type]
        index = random.Random(1).randbytes(50 * count)  # of the size of a real one
        for number in range(1, checkpoints + 1):
            name = f"ckpt-{number}"
            (folder / layout.index_name(name)).write_bytes(index)
            one = manifest(entries, name, number, int(google_crc32c.value(index)))
            (folder / layout.manifest_name(name)).write_bytes(manifest_json.render(one))
        began = time.perf_counter()
        seconds, view = _timed(lambda: Catalog(LocalStorage(), str(folder)).view(time.time()))
        assert len(view.active) == checkpoints
        return {"processor": seconds, "wall": time.perf_counter() - began}
    finally:
        shutil.rmtree(folder)


def manifest(
    entries: tuple[EntryRecord, ...], name: str = "ckpt-1", sequence: int = 1, crc32c: int = 1
) -> Manifest:
    """Returns a manifest of `entries`."""
    names = [layout.data_name(name, worker, WORKERS) for worker in range(WORKERS)]
    return Manifest(
        name=name,
        step=sequence,
        term=1,
        sequence=sequence,
        attempt=f"00000001-{sequence:06d}-7cb4f63f",
        committed_at=1.7e9 + sequence,
        seconds=0.5,
        versions={"python": "3.11.7", "distckpt": "0.1.0", "tensorflow": "2.21.0"},
        index=IndexRecord(layout.index_name(name), 1, crc32c),
        files=tuple(FileRecord(file, 1 << 30, worker) for worker, file in enumerate(names)),
        entries=entries,
        workers=(),
    )


def table(rows: list[dict[str, float]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| Tensors | Reports | Decode | Compare | Merge | Write manifest | Chief in all "
        "| Manifest | Read manifest | Read head |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = " | ".join(f"{row[name]:.2f} s" for name in (*CHIEF, "chief"))
        lines.append(
            f"| {row['entries']:,.0f} | {row['reports'] / 1e6:.1f} MB | {steps} "
            f"| {row['manifest'] / 1e6:.2f} MB | {row['parse']:.2f} s "
            f"| {1e6 * row['head']:.0f} µs |"
        )
    return "\n".join(lines)


def _reports(plan: Plan) -> Iterator[str]:
    numbers = random.Random(1)
    for worker, share in enumerate(plan.shares):
        pieces, offset = [], 0
        for p in share:
            checksum = numbers.getrandbits(32)
            key, dtype = p.entry.key, p.entry.dtype
            pieces.append(WrittenPiece(key, dtype, p.shape, p.spec, 0, offset, p.nbytes, checksum))
            offset += p.nbytes
        files = (WrittenFile(f"shard-{worker}", offset),)
        report = Report(worker, "host", 1, 0.1, (f"shard-{worker}",), files, tuple(pieces))
        yield messages.to_json(report)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.thread_time()
    found = work()
    return time.thread_time() - before, found


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=ENTRIES[-1], help="up to so many tensors")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is taken")
    add_json(parser)
    options = parser.parse_args()
    rows = []
    for count in [n for n in ENTRIES if n <= options.most] or [options.most]:
        found = [measure(count) for _ in range(options.rounds)]
        rows.append({key: statistics.median(row[key] for row in found) for key in found[0]})
    print(f"{WORKERS} workers\n\n{table(rows)}\n")
    count = min(TENSORS, options.most)
    look = measure_directory(CHECKPOINTS, count)
    print(
        f"Looking at {CHECKPOINTS:,} checkpoints of {count:,} tensors: "
        f"{look['processor']:.2f} s of the processor, {look['wall']:.2f} s in all\n"
    )
    found_here = findings(rows[-1], count, look["processor"])
    print("\n".join(f"- {each.line()}" for each in found_here))
    report.write_findings(options.json, found_here)
    return 0


def findings(last: dict[str, float], tensors: int, looking: float) -> list[Finding]:
    """Returns what was expected of the largest case, and of looking at a directory."""
    title = f"{last['entries']:,.0f} tensors, {WORKERS} workers"
    found = [
        Finding(f"{title}: {column}", Figure.of([last[column]]), ("≤", most), f" {unit}")
        for column, most, unit in EXPECTED
    ]
    text = f"{CHECKPOINTS:,} checkpoints of {tensors:,} tensors: looking at the directory, CPU"
    return [*found, Finding(text, Figure.of([looking]), ("≤", 1.0), " s")]


if __name__ == "__main__":
    sys.exit(main())
