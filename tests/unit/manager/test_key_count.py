"""Few keys stay in the key-value store, even after many saves, failures or refusals."""

from __future__ import annotations

import pytest

from distckpt.policies import EverySeconds

from .programs import Job


@pytest.mark.parametrize(
    ("saves", "counted"), [(400, "step_counter"), (1000, "step_counter"), (1000, "nothing")]
)
def test_many_saves_leave_few_keys(tmp_path, saves, counted):
    job = Job(2, tmp_path, counted=counted, max_to_keep=1)
    seen = []

    def program(worker):
        for _ in range(saves):
            worker.train()
            worker.manager.save()
            worker.manager.agree_on(1)
            if not worker.index:
                seen.append(job.keys())

    job.run(program, patience=300)
    assert max(seen) < 300
    half = saves // 2
    assert max(seen[half:]) <= max(seen[:half])


@pytest.mark.parametrize("saves", [200, 600])
def test_saves_that_fail_for_ever_leave_few_keys(tmp_path, saves):
    job = Job(2, tmp_path, max_to_keep=1)

    def program(worker):
        for _ in range(saves):
            worker.train()
            job.together()
            if worker.index:
                worker.save(metrics={"loss": "n/a"})
            else:
                worker.save()
        worker.train()
        worker.save()

    job.run(program, patience=300)
    assert job.keys() < 4 * saves
    assert len(job.saved()) == 1


def test_a_policy_that_says_no_for_ever_leaves_few_keys(tmp_path):
    options = {"save_policy": EverySeconds(10_000), "enable_async": True, "when_busy": "skip"}
    job = Job(2, tmp_path, options=options)

    def program(worker):
        for _ in range(900):
            worker.train()
            worker.manager.save()

    job.run(program, patience=300)
    assert job.keys() < 700
