"""Virtual environments for the libraries that distckpt is compared with: made once, then kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

DEFAULT = Path("~/.cache/distckpt-benchmarks")
REQUIREMENTS = {
    "orbax": ("orbax-checkpoint==0.12.8", "jax==0.10.2", "numpy==2.4.6"),
    "torch": ("torch==2.13.0", "numpy==2.4.6"),
}
_SECONDS = 1800.0
_BRIEF = ("--retries", "1", "--timeout", "20")  # without a network, it is soon known
_STAMP = "distckpt-fingerprint"


class EnvironmentFailedError(RuntimeError):
    """An environment could not be made; the text says why, in one line."""


def python_of(library: str, root: Path) -> str:
    """Returns the interpreter for `library`, making its environment if that is not there.

    TensorFlow and distckpt are measured as they are installed for this very interpreter.

    Raises:
      EnvironmentFailedError: It cannot be made.
    """
    if library not in REQUIREMENTS:
        return sys.executable
    folder = root.expanduser() / library
    stamp = folder / _STAMP
    if not stamp.exists() or stamp.read_text() != fingerprint(library):
        _make(library, folder)
        stamp.write_text(fingerprint(library))  # last: a half-made environment has none
    return str(folder / "bin" / "python")


def fingerprint(library: str) -> str:
    """Returns what changes when an environment has to be made anew."""
    facts = [REQUIREMENTS[library], sys.version, sys.base_prefix]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _make(library: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", *_BRIEF, *REQUIREMENTS[library]])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFailedError(f"{error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no output"]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise EnvironmentFailedError((errors or lines)[-1])
