from __future__ import annotations

import pytest

from ..kit.fixtures import folder as folder
from ..kit.fixtures import impatient as impatient
from .jobs import Job


@pytest.fixture
def job():
    return Job()
