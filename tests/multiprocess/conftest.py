"""Fixtures: one warm pool for each number of workers, started when a test first needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .pool import Pool


@pytest.fixture(scope="session")
def pools() -> Iterator[Callable]:
    """Returns get(count, chief=False): a warm pool, replaced if a test has broken it."""
    made = {}

    def get(count: int, chief: bool = False):
        key = (count, chief)
        if key in made and made[key].broken:
            made.pop(key).close()
        if key not in made:
            made[key] = Pool(count, chief=chief)
        return made[key]

    yield get
    for pool in made.values():
        pool.close()


class Plain:
    """Restores without distckpt, in this process and without a cluster."""

    def digest(self, directory: str):
        import tensorflow as tf

        from .mirrored_state import digest, make_state

        checkpoint = make_state(tf.distribute.get_strategy(), seed=12345)
        path = tf.train.latest_checkpoint(directory)
        checkpoint.restore(path).assert_existing_objects_matched()
        reader = tf.train.load_checkpoint(path)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)  # every tensor can be read whole
        return digest(checkpoint)


@pytest.fixture(scope="session")
def plain() -> Plain:
    return Plain()
