"""``distckpt launch`` as people run it: how workers end, restarts, and bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

# In a worker, `first` is true for worker 1 at the first start.
FIRST = (
    "import json, os, signal, sys, time\n"
    "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
    "first = index == 1 and os.environ['DISTCKPT_RESTART'] == '0'\n"
)


def test_all_finished_is_exit_code_0_and_lines_carry_names(launch) -> None:
    done = launch("--workers", 2, "import sys; print('a\\nb'); print('c', file=sys.stderr)")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [
        "[worker 0] a",
        "[worker 0] b",
        "[worker 1] a",
        "[worker 1] b",
    ]
    assert sorted(done.stderr.splitlines()) == ["[worker 0] c", "[worker 1] c"]


def test_the_chief_is_called_chief(launch) -> None:
    done = launch("--workers", 2, "--chief", "print(1)")
    assert sorted(done.stdout.splitlines()) == ["[chief] 1", "[worker 0] 1"]


def test_a_worker_that_finishes_early_is_not_a_failure(launch) -> None:
    done = launch("--workers", 2, FIRST + "time.sleep(0.3 * index); print('whole')")
    assert done.returncode == 0
    assert done.stdout.count("whole") == 2


@pytest.mark.parametrize(
    ("deed", "exit_code", "words"),
    [
        ("sys.exit(7)", 7, "exited with code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "was killed by SIGTERM"),
    ],
)
def test_the_first_failed_worker_decides_and_the_others_are_stopped(
    launch, deed: str, exit_code: int, words: str
) -> None:
    code = FIRST + f"if first: {deed}\ntime.sleep(600)"
    done = launch("--workers", 3, code)
    assert done.returncode == exit_code
    assert re.search(rf"distckpt launch: worker 1 \(pid \d+\) {words}; stopping", done.stderr)


def test_others_that_ignore_sigterm_are_killed_after_the_stop_grace(launch) -> None:
    code = (
        FIRST + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if first: time.sleep(0.5); sys.exit(1)\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    done = launch("--workers", 2, "--stop-grace", 0.3, code)
    assert done.returncode == 1
    assert "not ended in time: worker 0; killing" in done.stderr
    assert time.monotonic() - began < 20.0


def test_a_restart_starts_all_again_on_fresh_ports_in_the_same_run(launch) -> None:
    code = FIRST + (
        "print(json.dumps([os.environ['DISTCKPT_RESTART'], os.environ['DISTCKPT_RUN_ID'],"
        " json.loads(os.environ['TF_CONFIG'])['cluster']['worker']]))\n"
        "if first: os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(600 if os.environ['DISTCKPT_RESTART'] == '0' else 0)"
    )
    done = launch("--workers", 2, "--max-restarts", 2, code)
    assert done.returncode == 0
    assert re.search(r"restart 1 of 2, because worker 1 \(pid \d+\) was killed", done.stderr)
    assert "restart 2" not in done.stderr
    said = [json.loads(line.partition("] ")[2]) for line in done.stdout.splitlines()]
    again = [ports for restart, _, ports in said if restart == "1"]
    before = [ports for restart, _, ports in said if restart == "0"]
    assert len(again) == 2
    assert before
    assert not set(again[0]) & set(before[0])
    assert len({run_id for _, run_id, _ in said}) == 1


def test_restarts_are_used_up_and_the_last_failure_counts(launch, tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(10 + int(os.environ['DISTCKPT_RESTART']))"
    done = launch("--workers", 1, "--max-restarts", 2, "--log-dir", tmp_path / "logs", code)
    assert done.returncode == 12
    assert "all 2 restarts are used up" in done.stderr
    assert str(tmp_path / "logs" / "worker-0.restart-2.log") in done.stderr
    assert sorted(os.listdir(tmp_path / "logs")) == [
        f"worker-0.restart-{restart}.log" for restart in range(3)
    ]


def test_an_elastic_cluster_goes_on_with_those_that_are_left(launch) -> None:
    """Of three workers one is lost, and the other two form a cluster; one alone is not enough."""
    code = FIRST + (
        "workers = len(json.loads(os.environ['TF_CONFIG'])['cluster']['worker'])\n"
        "print('start', os.environ['DISTCKPT_RESTART'], 'of', workers, flush=True)\n"
        "if index == 1 and {lost}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "if {lost}: time.sleep(60)\n"
    )
    elastic = ["--elastic", "2:3", "--max-restarts", 5, "--elastic-wait", 0.1]
    done = launch(*elastic, code.format(lost="workers == 3"))
    assert done.returncode == 0
    assert "restart 1 of 5 with 2 workers, because worker 1 (pid " in done.stderr
    lines = [line for line in done.stdout.splitlines() if "start 1" in line]
    assert sorted(lines) == ["[worker 0] start 1 of 2", "[worker 1] start 1 of 2"]
    done = launch(*elastic, code.format(lost="True"))
    assert done.returncode == 69
    assert "only 1 worker left, but 2 needed, because worker 1" in done.stderr


def test_environment_variables_reach_the_workers(launch) -> None:
    code = "import os; print(os.environ['A'], os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    done = launch("--workers", 1, "--env", "A=x=y", code)
    assert done.stdout == "[worker 0] x=y 2\n"


def test_options_after_the_command_belong_to_the_command(run) -> None:
    code = "import sys; print(sys.argv[1:])"
    done = run("launch", "--workers", 1, sys.executable, "-c", code, "--workers", 9)
    assert done.stdout == "[worker 0] ['--workers', '9']\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--workers", "0", "true"], 2, "workers must be a whole number, 1 or more, got 0"),
        (["--workers", "x", "true"], 2, "'x' is not a valid integer"),
        (["--workers", "2"], 2, "Missing argument 'COMMAND...'"),
        (["--", "true"], 78, "Cannot tell which worker of which job this is"),
        (["--max-restarts", "1", "--", "true"], 2, "(in a pod, the scheduler restarts the worker)"),
        (["--workers", "1", "--replicas", "1", "true"], 2, "--replicas is for the one worker of"),
        (["--elastic", "2", "true"], 2, "'2' is not LEAST:MOST"),
        (["--elastic", "3:2", "true"], 2, "'3:2' is not LEAST:MOST"),
        (["--elastic", "1:2", "--workers", "3", "true"], 2, "--workers 3 is more than the 2"),
        (["--elastic", "2:3", "--workers", "1", "true"], 2, "least must not exceed workers"),
        (["--workers", "1", "--grace", "nan", "true"], 2, "grace must be a finite number"),
        (["--workers", "1", "--max-restarts", "-1", "true"], 2, "max_restarts must be"),
        (["--workers", "1", "--env", "A", "true"], 2, "'A' is not KEY=VALUE"),
        (["--workers", "1", "--env", "=A", "true"], 2, "'=A' is not KEY=VALUE"),
        (["--workers", "1", "--env", "TF_CONFIG=", "true"], 2, "TF_CONFIG is set by the launcher"),
        (["--workers", "1", "--log-dir", "/dev/null/x", "true"], 2, "log directory cannot be"),
        (["--workers", "2", "no-such-command"], 127, "Cannot run 'no-such-command': No such file"),
        (["--workers", "2", "/etc/passwd"], 126, "Cannot run '/etc/passwd': Permission denied"),
    ],
)
def test_bad_input_has_a_clear_error_and_a_documented_exit_code(
    run, arguments: list[str], exit_code: int, words: str
) -> None:
    done = run("launch", *arguments)
    assert done.returncode == exit_code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_cannot_run_is_not_tried_again(run) -> None:
    done = run("launch", "--workers", 1, "--max-restarts", 3, "--", "no-such-command")
    assert done.returncode == 127
    assert "restart" not in done.stderr


def test_launching_inside_a_launch_works(run) -> None:
    inner = [sys.executable, "-m", "distckpt", "launch", "--workers", "2", "--", "echo", "hi"]
    done = run("launch", "--workers", 1, "--", *inner)
    lines = sorted(done.stdout.splitlines())
    assert lines == ["[worker 0] [worker 0] hi", "[worker 0] [worker 1] hi"]


def test_version_is_printed(run) -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("distckpt ")


def test_help_documents_options_and_exit_codes(run) -> None:
    text = run("launch", "--help").stdout
    for word in ("--workers", "--max-restarts", "--log-dir", "--chief", "--grace", "127", "143"):
        assert word in text
    assert "distckpt launch --workers 4 -- python train.py" in text


def test_without_a_command_the_help_is_shown(run) -> None:
    done = run()
    assert "launch" in done.stdout + done.stderr


def test_the_command_line_imports_no_tensorflow() -> None:
    code = (
        "import sys, distckpt.cli, distckpt.launcher;"
        "print([m for m in sys.modules if m.partition('.')[0] in ('tensorflow', 'keras', 'numpy')])"
    )
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "[]\n"
