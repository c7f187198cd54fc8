"""The power fails at every point of a save: what counts then is what has been flushed.

A death of the process alone loses nothing that was written; a power failure loses what was not
forced to the disk, see `power.PowerStorage`.
"""

from __future__ import annotations

import pytest

from distckpt.testing.faulty_storage import BEFORE, Fault, FaultyStorage, ProcessDied, Where, dies

from ..kit import lab
from ..kit.power import PowerStorage
from ..kit.scenes import EVERY, SCENES, check_next_save, check_readers


def power_on(tree, directory):
    """Lays out what has survived."""
    directory.mkdir(parents=True)
    for name, content in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(directory)


def save_until(scene, directory, k):
    """Saves on a PowerStorage until the power fails before operation `k`.

    Returns:
      The storage, and whether the save was acknowledged before.
    """
    power = PowerStorage(directory)
    storage = FaultyStorage(power, [Fault(dies(), Where(writing=k), BEFORE)])
    chief = lab.Chief(directory, storage, max_to_keep=scene.max_to_keep)
    workers = [storage] * scene.workers  # on one machine, and one disk
    try:
        chief.save(scene.name, scene.number, scene.workers, others=workers)
    except ProcessDied:
        return power, False
    return power, True


def cases(positions):
    """Returns sets of changes to survive: none, all, the first, the last, all but one of these."""
    everything = set(positions)
    found = [set(), everything]
    for one in {*positions[:1], *positions[-1:]}:
        found += [{one}, everything - {one}]
    return list({frozenset(case) for case in found})


def before_all(scene, directory):
    scene.before(str(directory))
    chief = lab.Chief(directory, max_to_keep=scene.max_to_keep)
    for name, number in scene.same_process:
        chief.save(name, number, scene.workers)


@EVERY
@pytest.mark.parametrize("title", SCENES)
def test_a_power_failure_anywhere_loses_nothing(title, every, folder):
    scene = SCENES[title]
    start = folder / "start"
    start.mkdir()
    before_all(scene, start)
    acknowledged, k = False, [*SCENES].index(title) % every + 1 - every
    while not acknowledged:
        k += every
        power, acknowledged = save_until(scene, start, k)
        for number, lucky in enumerate(cases(power.open)):
            directory = power_on(power.survivors(lucky), folder / f"{k}-{number}")
            allowed = {scene.number} if acknowledged else {scene.acknowledged, scene.number}
            check_readers(directory, allowed, pointed=scene.acknowledged is not None)
            successor = lab.Chief(directory, max_to_keep=scene.max_to_keep)
            check_next_save(successor, scene.name if k % 2 else "ckpt-10", 7)
    assert k > 20
