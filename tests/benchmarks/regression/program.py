"""The process that measures one commit. It imports TensorFlow once, then answers requests.

    python -m regression.program FOLDER

A request is a line of JSON on standard input, {"measure": NAME}; the answer is one on standard
output: {"cpu": seconds, "counts": {...}}, or {"error": "…"}. Before that, it writes
{"names": [...], "package": "…"}. It ends when standard input does.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import distckpt
from distckpt.coordination.in_process import InProcess
from distckpt.storage.local import LocalStorage
from regression import counting, measurements
from regression.measurements import Bench, Prepared, Sizes


def main(folder: Path) -> None:
    """Answers requests until there are no more."""
    # What TensorFlow prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    # Else each collection would look at all that TensorFlow has made when it was imported.
    gc.collect()
    gc.freeze()
    sizes = Sizes()
    answer({"names": list(measurements.named(sizes)), "package": str(distckpt.__file__)})
    serve(sys.stdin, answer, Bench(folder, sizes), measurements.named(sizes))


def serve(
    requests: Iterable[str],
    answer: Callable[[dict[str, Any]], None],
    bench: Bench,
    known: dict[str, Callable[[Bench], Prepared]],
) -> None:
    """Answers each of `requests`."""
    with counting.counted(LocalStorage, InProcess) as counts:
        for line in requests:
            try:
                answer(measure(known[json.loads(line)["measure"]], bench, counts))
            except Exception as error:
                answer({"error": f"{type(error).__name__}: {error}"})


def measure(
    prepare: Callable[[Bench], Prepared], bench: Bench, counts: counting.Counts
) -> dict[str, Any]:
    """Makes a measurement as often as it asks for; `counts` is updated by every call.

    Returns:
      The median of the processor times, and the counts of the last time.
    """
    seconds: list[float] = []
    while True:
        prepared = prepare(bench)
        gc.collect()  # what was made before is not what the call costs
        counts.clear()
        before = processor_time()
        prepared.call()
        seconds.append(processor_time() - before)
        if len(seconds) >= prepared.repeat:
            break
    found = dict(counts) | prepared.counts
    if prepared.saved_in is not None:
        found |= counting.files(measurements.newest(prepared.saved_in))
    return {"cpu": statistics.median(seconds), "counts": found}


def processor_time() -> float:
    """Returns the seconds of this process, all threads together, and of its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main(Path(sys.argv[1]))
