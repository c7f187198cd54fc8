from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "distckpt.testing.storage_contract",
    "distckpt.testing.coordinator_clauses",
    "distckpt.testing.coordinator_contract",
)


@pytest.fixture
def storage():
    from distckpt.storage.local import LocalStorage

    return LocalStorage()
