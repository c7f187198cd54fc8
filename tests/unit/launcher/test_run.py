"""`launch` from Python."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from distckpt.launcher import CommandError, LaunchSpec, launch
from distckpt.launcher.run import SignalInbox, signals


def spec(code: str, **options) -> LaunchSpec:
    return LaunchSpec(command=[sys.executable, "-c", code], **{"workers": 2, **options})


def test_the_result_tells_how_it_went(tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(0 if os.environ['DISTCKPT_RESTART'] == '1' else 3)"
    result = launch(spec(code, max_restarts=4, log_dir=tmp_path))
    assert (result.exit_code, result.restarts) == (0, 1)
    assert [worker.returncode for worker in result.workers] == [0, 0]
    assert [worker.gone for worker in result.workers] == [True, True]
    assert result.workers[1].log == str(tmp_path / "worker-1.restart-1.log")


def test_output_appears_on_the_standard_streams(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    launch(spec("import sys; print('out'); print('err', file=sys.stderr)", workers=1))
    out, err = capfd.readouterr()
    assert out == "before\n[worker 0] out\n"
    assert err == "[worker 0] err\n"


def test_a_command_that_cannot_run_raises() -> None:
    with pytest.raises(CommandError) as caught:
        launch(LaunchSpec(command=["no-such-command"], workers=1))
    assert caught.value.exit_code == 127


def test_signal_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    launch(spec("pass"))
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_to_this_process_ends_the_launch() -> None:
    code = f"import os, time; os.kill({os.getpid()}, {int(signal.SIGTERM)}); time.sleep(600)"
    result = launch(spec(code, workers=1))
    assert result.exit_code == 143
    assert result.workers[0].returncode == -signal.SIGTERM


def test_a_signal_of_the_program_s_own_does_not_end_the_wait_before_fewer_start() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    over = threading.Event()

    def disturb() -> None:
        while not over.wait(0.2):
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    code = "import json, os, time; c = json.loads(os.environ['TF_CONFIG'])\n"
    code += "if len(c['cluster']['worker']) == 2:\n"
    code += "    time.sleep(600) if c['task']['index'] == 0 else os.kill(os.getpid(), 9)"
    try:
        result = launch(spec(code, max_restarts=1, least=1, elastic_wait=1.0))
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert (result.exit_code, result.restarts) == (0, 1)


def test_it_works_on_another_thread_where_signals_cannot_be_taken() -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(launch(spec("pass"))))
    thread.start()
    thread.join(30.0)
    assert results[0].exit_code == 0


def test_a_signal_is_seen_also_while_the_interpreter_cannot_run_a_handler() -> None:
    """As when it comes just before a wait: then no handler in Python would run before its end."""
    seen: list[bool] = []

    def interrupt(inbox: SignalInbox, main: int) -> None:
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)
        ready, _, _ = select.select([inbox], [], [], 5.0)
        seen.append(bool(ready) and computing)

    with signals() as inbox:
        computing = True
        other = threading.Thread(target=interrupt, args=(inbox, threading.get_ident()))
        other.start()
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2_000_000)  # a second of C without Python
        computing = False
        other.join()
        assert seen == [True]
        assert inbox.take() == [signal.SIGINT]
        assert inbox.take() == []
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
