from __future__ import annotations

from distckpt.core.manifest import IndexRecord, Manifest, WorkerRecord
from distckpt.core.protocol import phases
from distckpt.core.protocol.phases import Phase
from distckpt.inspection import timeline


def manifest(number, *workers, began=100.0):
    """Each worker is (seconds of waiting, of writing)."""
    records = tuple(
        WorkerRecord(
            index,
            "h",
            1,
            10,
            write,
            (
                Phase(phases.WAIT, began, wait),
                Phase(phases.WRITE, began + wait, write),
            ),
        )
        for index, (wait, write) in enumerate(workers)
    )
    name = f"ckpt-{number}"
    return Manifest(
        name=name,
        step=10 * number,
        term=1,
        sequence=number,
        attempt="",
        committed_at=0.0,
        seconds=1.25,
        index=IndexRecord(f"{name}.index", 1, 1),
        files=(),
        entries=(),
        workers=records,
        versions={},
    )


def test_a_worker_whose_own_part_took_long_is_named():
    save = timeline.of_manifest(manifest(1, (0.9, 0.1), (0.1, 0.9), (0.9, 0.12)))
    assert save.straggler == 1
    assert save.headline == (
        "ckpt-1, step 10: 1.25 s; worker 1 took 0.9 s for its part (write 0.9 s), most 0.12 s"
    )
    assert save.to_json()["workers"][1]["own_seconds"] == 0.9


def test_waiting_makes_no_straggler_and_neither_do_milliseconds():
    assert timeline.of_manifest(manifest(1, (9.0, 0.1), (0.0, 0.1))).straggler is None
    assert timeline.of_manifest(manifest(1, (0.0, 0.01), (0.0, 0.03))).straggler is None
    assert timeline.of_manifest(manifest(1, (0.0, 5.0))).straggler is None
    assert timeline.of_manifest(manifest(1, (0.0, 0.1), (0.0, 0.2))).straggler == 1


def test_the_newest_that_tell_their_phases_oldest_first():
    silent = manifest(4)
    made = [manifest(3, (1, 1)), silent, manifest(1, (1, 1)), manifest(2, (1, 1))]
    assert [save.name for save in timeline.last(made, 2)] == ["ckpt-2", "ckpt-3"]
    assert timeline.last([silent], 2) == []
