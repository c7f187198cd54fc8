from __future__ import annotations

import threading
import time

import pytest

from distckpt.coordination.background import Background
from distckpt.coordination.crew import Crew


def test_the_result_of_a_finished_call_is_returned():
    call = Background(lambda: 42, Crew(0))
    assert call.finished(5)
    assert call.result() == 42


def test_the_error_of_a_finished_call_is_raised():
    def fail():
        raise OSError("broken")

    call = Background(fail, Crew(0))
    assert call.finished(5)
    with pytest.raises(OSError, match="broken"):
        call.result()


def test_a_call_that_blocks_does_not_block_its_caller():
    release = threading.Event()
    began = time.monotonic()
    call = Background(release.wait, Crew(0))
    assert not call.finished(0)
    assert not call.finished(0.1)
    assert 0.1 <= call.seconds() < 5
    assert time.monotonic() - began < 5
    release.set()
    assert call.finished(5)
