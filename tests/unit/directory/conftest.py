from __future__ import annotations

import pytest

from ..kit import lab
from ..kit.fixtures import folder as folder
from ..kit.fixtures import impatient as impatient


@pytest.fixture
def run(tmp_path):
    """A directory with ckpt-1 to ckpt-3."""
    chief = lab.Chief(tmp_path / "run", max_to_keep=9)
    for number in (1, 2, 3):
        chief.save(f"ckpt-{number}", number)
    return tmp_path / "run"
