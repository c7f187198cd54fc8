"""Any build of TensorFlow serves; without one, the error says what to install."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from distckpt.runtime import tf_version

WITHOUT = "import sys; sys.modules['tensorflow'] = None; "


@pytest.mark.parametrize("version", ["2.16.2", "2.18.0", "2.21.0", "2.21.0-rc1"])
def test_tested_versions_are_taken_in_silence(caplog, version):
    tf_version.check.cache_clear()
    tf_version.check(version)
    assert caplog.text == ""


@pytest.mark.parametrize("version", ["2.15.1", "2.22.0-dev20261101", "3.0.0", "of my own"])
def test_another_version_is_a_warning_given_once(caplog, version):
    caplog.set_level(logging.WARNING)
    tf_version.check.cache_clear()
    tf_version.check(version)
    tf_version.check(version)
    assert [r.getMessage() for r in caplog.records] == [
        f"distckpt was tested with TensorFlow 2.16 to 2.21, but this is {version}."
    ]


def without_tensorflow(program):
    command = [sys.executable, "-c", WITHOUT + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    "name",
    ["CheckpointManager", "IndexedInput", "handle_preemption", "keras", "listeners.TensorBoard"],
)
def test_without_tensorflow_the_first_use_says_what_to_install(name):
    ended = without_tensorflow(f"import distckpt; distckpt.{name}")
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1
    assert f"ImportError: distckpt.{name}: This needs TensorFlow 2.16 to 2.21" in ended.stderr
    assert "pip install 'distckpt[tensorflow]'" in ended.stderr


def test_another_missing_module_is_another_error():
    error = ModuleNotFoundError("x", name="numpy")
    assert not tf_version.is_missing(error)
    assert tf_version.explained(error, "distckpt.keras") is error


def test_without_tensorflow_a_local_directory_can_be_listed(tmp_path):
    program = "from distckpt.cli import main; main(['ls', sys.argv[1]])"
    command = [sys.executable, "-c", WITHOUT + program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "TensorFlow" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_tensorflow_a_command_on_an_object_store_says_what_to_install():
    ended = without_tensorflow("from distckpt.cli import main; main(['ls', 'gs://bucket/run'])")
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: This needs TensorFlow 2.16 to 2.21")
    assert "Traceback" not in ended.stderr
