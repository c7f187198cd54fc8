"""Real pods: killed, preempted, resized, cut off, set up wrongly. Nothing is lost."""

from __future__ import annotations

import re

import pytest

from distckpt.core import listings
from distckpt.directory.catalog import Catalog
from distckpt.restoring.verifier import Verifier
from distckpt.storage.local import LocalStorage

from .job import Job

# The first test builds the image, which takes a quarter of an hour on a busy machine.
pytestmark = [pytest.mark.pods, pytest.mark.timeout(2400)]
GRACE = 100


@pytest.fixture
def job(podman, manifest, image, volume):
    """Returns start(…): a `Job` on the volume."""

    def start(where=None, *, steps=100_000, every=20, kind=manifest, **options):
        arguments = ["--steps", steps, "--save-every", every]
        return Job(podman, kind, image, where or volume, arguments=arguments, **options)

    return start


def directory(volume):
    return str(volume / "digits")


def committed(volume):
    """Returns the steps of the checkpoints in the directory, all of which are whole."""
    storage, where = LocalStorage(), directory(volume)
    found = listings.classify(storage.list(where)).checkpoints.values()
    names = [files.name for files in found if files.has_manifest]
    for name in names:
        Verifier(storage, where).verify(name)
    return sorted(Catalog(storage, where).manifest(name).step for name in names)


def stopped(worker, step, save):
    return {"DISTCKPT_FAULT": f"worker={worker} step={step} moment=before save={save} fault=stop"}


def strike_in_the_middle_of_a_save(job, victim, fault):
    """Starts three pods, and kills one while it is stopped within a save; returns the job's end."""
    with job(variables={victim: fault}) as pods:
        pods.wait_until(lambda: pods.is_stopped(victim), "the save")
        pods.kill(victim)
        codes = pods.ends()
        expected = [137 if index == victim else 69 for index in range(3)]
        assert codes == expected, pods.logs()
        return {pods.started_at(index) for index in range(3)}


def test_pods_are_killed_preempted_resized_and_nothing_is_lost(job, volume):
    # A worker is killed in its third save: ckpt-60.
    started = strike_in_the_middle_of_a_save(job, 1, stopped(1, "SendAnswer", 3))
    assert started == {0}
    assert max(committed(volume)) == 40
    # The chief is killed just before the second commit of this start: ckpt-80.
    started = strike_in_the_middle_of_a_save(job, 0, stopped(0, "Commit", 2))
    assert started == {40}
    assert max(committed(volume)) == 60
    # Preemption of one pod: all save the same step.
    with job() as pods:
        pods.wait_until(lambda: max(committed(volume)) >= 80, "ckpt-80")
        stopping = pods.stop(2, GRACE)
        assert pods.ends() == [75, 75, 75], pods.logs()
        stopping.wait(timeout=300)
        assert {pods.started_at(index) for index in range(3)} == {60}
    saved = max(committed(volume))
    assert saved > 80
    # Two pods go on from there, at the next step, and finish.
    with job(workers=2, steps=saved + 30) as pods:
        assert pods.ends() == [0, 0], pods.logs()
        assert {pods.started_at(index) for index in range(2)} == {saved}
        assert float(re.search(r"test accuracy (\S+)", pods.log(0))[1]) > 0.5
    assert max(committed(volume)) == saved + 30
    assert not list((volume / "digits").glob("*.pending-*"))


def test_a_pod_that_was_cut_off_comes_back_and_harms_nothing(job, volume):
    """The chief is cut off while it commits; its replacement takes over; then it comes back."""
    with job(workers=2, variables={0: stopped(0, "Commit", 2)}) as old:
        old.wait_until(lambda: old.is_stopped(0), "the commit")
        old.cut(0, off=True)
        with job(workers=2) as new:
            new.wait_until(lambda: max(committed(volume)) >= 60, "ckpt-60")
            before = committed(volume)
            old.cut(0, off=False)
            old.go_on(0)
            codes = old.ends()
            assert codes[0] == 77, old.logs()
            assert codes[1] in (69, 77), old.logs()  # whether it hears that, or of a silent chief
            assert "SupersededError" in old.log(0)
            assert "has taken over" in old.log(0), old.log(0)
            assert max(committed(volume)) >= max(before)
            stopping = new.stop(0, GRACE)
            assert new.ends() == [75, 75], new.logs()
            stopping.wait(timeout=300)
            assert new.started_at(0) == new.started_at(1) == 20
    committed(volume)
    assert not list((volume / "digits").glob("*.pending-*"))


def test_the_pods_of_a_train_job_train_and_go_on_where_they_were(job, train_job, volume):
    """The names, the variables and the command that Kubeflow Trainer and JobSet give them."""
    for steps in (20, 40):
        with job(kind=train_job, steps=steps) as pods:
            assert pods.ends() == [0, 0, 0], pods.logs()
            assert {pods.started_at(index) for index in range(3)} == {steps - 20}
            for index in range(3):
                assert f"this is worker {index}, according to an Indexed Job" in pods.log(index)
                assert "all 3 workers have come" in pods.log(index)
    assert committed(volume) == [20, 40]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"variables": {0: {"JOB_COMPLETION_INDEX": None}}, "indices": [0], "host": "alone"},
            "Cannot tell which worker of which job this is",
        ),
        ({"indices": [5]}, r"there are only 3 \(0 to 2\)"),
        (
            {
                "indices": [1],
                "variables": {
                    1: {
                        "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": '
                        '{"type": "worker", "index": 0}}'
                    }
                },
            },
            "JOB_COMPLETION_INDEX is 1",
        ),
    ],
    ids=["nothing known", "index beyond", "contradictory"],
)
def test_a_wrong_set_up_ends_with_the_code_that_stops_retries(job, options, text):
    with job(**options) as pods:
        assert pods.ends() == [78]
        (index,) = options["indices"]
        assert re.search(text, pods.log(index)), pods.log(index)
        assert "Traceback" not in pods.log(index)


def test_pods_that_are_not_there_yet_end_it_with_the_code_that_asks_for_a_restart(job):
    with job(variables={0: {"DISTCKPT_PEER_DEADLINE": "2"}}, indices=[0]) as pods:
        assert pods.ends() == [69]
        assert "these names cannot be resolved: digits-1.digits, digits-2.digits." in pods.log(0)


def test_a_volume_that_is_not_shared_ends_with_the_code_that_stops_retries(job, volume):
    volumes = []
    for name in ("one", "two"):
        folder = volume / name
        folder.mkdir()
        folder.chmod(0o2777)
        volumes.append(folder)
    with job(volumes, workers=2, every=5) as pods:
        assert pods.ends() == [78, 78], pods.logs()
        for index in range(2):
            assert "mount one shared file system" in pods.log(index), pods.log(index)
