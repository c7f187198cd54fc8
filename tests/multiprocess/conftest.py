"""Fixtures: one warm pool for each number of workers, made when first needed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("cluster_pool", Path(__file__).parent / "pool.py")
pool_module = importlib.util.module_from_spec(_spec)
sys.modules["cluster_pool"] = pool_module
_spec.loader.exec_module(pool_module)


@pytest.fixture(scope="session")
def pools() -> Iterator[Callable]:
    """Returns get(count, chief=False): a warm pool, replaced if a test has broken it."""
    made = {}

    def get(count: int, chief: bool = False):
        key = (count, chief)
        if key in made and made[key].broken:
            made.pop(key).close()
        if key not in made:
            made[key] = pool_module.Pool(count, chief=chief)
        return made[key]

    yield get
    for pool in made.values():
        pool.close()


class Plain:
    """Restores without distckpt, in this process and without a cluster."""

    def digest(self, directory: str):
        import tensorflow as tf

        programs = pool_module.load_programs()
        checkpoint = programs.make_state(tf.distribute.get_strategy(), seed=12345)
        path = tf.train.latest_checkpoint(directory)
        checkpoint.restore(path).assert_existing_objects_matched()
        reader = tf.train.load_checkpoint(path)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)  # every tensor can be read whole
        return programs.digest(checkpoint)


@pytest.fixture(scope="session")
def plain() -> Plain:
    return Plain()
