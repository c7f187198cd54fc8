"""Imports point down only, and what must do without TensorFlow does."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import distckpt

ROOT = pathlib.Path(distckpt.__file__).parent
# From the bottom up. What is on one level may not see its neighbours, but for its own package.
_LEVELS = """
errors events
arguments
exit_codes keep policies runtime
core
listeners options state storage
coordination doctor ownership
data directory messaging
preemption reading restoring
inspection
maintenance
saving
calls
manager
preemption.handler launcher
cli keras
__main__ testing
"""
LEVELS = tuple(
    tuple(f"distckpt.{name}" for name in line.split()) for line in _LEVELS.strip().splitlines()
)
# Rooms that see ports, and never an adapter: what they do is simulated.
ROOMS = ("ownership", "messaging", "directory", "restoring", "maintenance", "saving", "calls")
IN_ROOMS = tuple(f"distckpt.{room}." for room in ROOMS)
# Pure like the core, and next to what they are for.
PURE = (
    "distckpt.core",
    "distckpt.data.sample_order",
    "distckpt.doctor.clock_skew",
    "distckpt.inspection.space_estimate",
    "distckpt.inspection.timeline",
    "distckpt.preemption.time_budget",
    "distckpt.saving.save_overhead",
)
# All that these rooms may see of storage, state and coordination.
PORTS = {
    "distckpt.state.base",
    "distckpt.storage.base",
    "distckpt.storage.temporary",
    "distckpt.storage.obstacles",
    "distckpt.storage.lenient_reads",
    "distckpt.storage.retrying_reader",
    "distckpt.coordination.base",
}
NEED_TENSORFLOW = {
    "distckpt.preemption.handler",
    "distckpt.manager.checkpoint_manager",
    "distckpt.manager.shared_parts",
    "distckpt.manager.ending",
    "distckpt.manager.job",
    "distckpt.manager.construction",
    "distckpt.manager.operations",
    "distckpt.manager.restore_wiring",
    "distckpt.manager.save_wiring",
    "distckpt.keras",
    "distckpt.keras.callback",
    "distckpt.keras.checks",
    "distckpt.keras.fit",
    "distckpt.keras.joining",
    "distckpt.keras.manager_source",
    "distckpt.keras.memory",
    "distckpt.keras.best_metric",
    "distckpt.keras.progress",
    "distckpt.data.indexed_input",
    "distckpt.data.indices",
    "distckpt.data.replicas",
    "distckpt.data.shuffle",
    "distckpt.data.input_iteration",
    "distckpt.data.worker_input",
    "distckpt.listeners.tensorboard",
    "distckpt.coordination.choose",
    "distckpt.coordination.tensorflow_service",
    "distckpt.testing.coordinator_contract",
    "distckpt.testing.storage_contract",
}
# What a simulation does without.
WITH_A_CLOCK = (
    "distckpt.saving.background_save",
    "distckpt.saving.fault_points",
    "distckpt.calls.save_schedule",
)
PRIVATE_TENSORFLOW = ("distckpt.state.", "distckpt.coordination.tensorflow_service")


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imports(tree, *, everywhere=True):
    """Yields the names of modules that a module imports; TYPE_CHECKING blocks do not count.

    Args:
      tree: The module.
      everywhere: Whether imports within functions count.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)
        elif everywhere or not isinstance(node, ast.FunctionDef):
            yield from imports(node, everywhere=everywhere)


def package_of(module):
    """Returns the level of a module and the package or module of that level it belongs to."""
    if module == "distckpt":
        return len(LEVELS), module
    found = [
        (level, package)
        for level, packages in enumerate(LEVELS)
        for package in packages
        if f"{module}.".startswith(f"{package}.")
    ]
    assert found, f"{module} belongs to no level"
    return max(found, key=lambda pair: len(pair[1]))


def ours(names):
    return sorted({n for n in names if n == "distckpt" or n.startswith("distckpt.")})


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module):
    level, package = package_of(module)
    for name in ours(imports(MODULES[module])):
        other_level, other = package_of(name)
        assert other == package or other_level < level, f"{module} imports {name}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(IN_ROOMS)])
def test_what_is_simulated_sees_ports_and_never_an_adapter(module):
    below = ("distckpt.state", "distckpt.storage", "distckpt.coordination")
    found = {n for n in ours(imports(MODULES[module])) if n.startswith(below)}
    assert found <= PORTS


@pytest.mark.parametrize(
    "module", [m for m in MODULES if f"{m}.".startswith(tuple(f"{p}." for p in PURE))]
)
def test_what_is_pure_does_no_io_and_reads_no_clock(module):
    forbidden = {"os", "io", "time", "socket", "threading", "pathlib", "shutil", "tempfile"}
    forbidden |= {"logging", "random", "secrets", "subprocess", "tensorflow"}
    found = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not found & forbidden
    names = {node.id for node in ast.walk(MODULES[module]) if isinstance(node, ast.Name)}
    assert not names & {"open", "print", "input"}


def test_there_are_no_import_cycles():
    graph = {
        module: set(ours(imports(tree, everywhere=False))) - {module}
        for module, tree in MODULES.items()
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done:
            return
        path.append(module)
        for name in sorted(graph[module]):
            visit(name)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith(PRIVATE_TENSORFLOW)])
def test_private_tensorflow_api_stays_where_it_belongs(module):
    tree = MODULES[module]
    private = [n for n in imports(tree) if n.startswith("tensorflow.") and n != "tensorflow.io"]
    assert not private, f"{module} imports {private}"
    for node in ast.walk(tree):
        attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if attribute and node.value.id == "tf":
            assert not node.attr.startswith("_"), f"{module} uses tf.{node.attr}"
            assert node.attr not in ("python", "__internal__"), f"{module} uses tf.{node.attr}"


def without_tensorflow():
    return [
        module
        for module in MODULES
        if module not in NEED_TENSORFLOW
        and not (module.startswith("distckpt.state.") and module != "distckpt.state.base")
        and module != "distckpt.__main__"
    ]


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT.parent,
        check=True,
    ).stdout


def test_what_only_looks_at_a_directory_does_without_tensorflow():
    """Its import takes 4 to 6 seconds."""
    names = without_tensorflow()
    for needed in (
        "saving.save_session",
        "core.protocol.chief_save",
        "coordination.in_process",
        "storage.local",
    ):
        assert f"distckpt.{needed}" in names
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    if any(m == "tensorflow" or m.startswith("tensorflow.") for m in sys.modules):
        print(name)
        break
"""
    assert run(program) == ""


def test_public_names_are_imported_when_they_are_first_used():
    program = """
import sys, distckpt
before = set(sys.modules)
assert not [m for m in before if m.startswith("distckpt.")], before
distckpt.ManagerOptions, distckpt.errors, distckpt.SharedDirectory
assert "tensorflow" not in sys.modules
print("lazy")
"""
    assert run(program) == "lazy\n"


def names_for_type_checkers():
    found = set()
    for node in MODULES["distckpt"].body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for inner in node.body:
                found |= {alias.asname or alias.name for alias in inner.names}
    return found


def test_the_list_of_public_names_is_the_same_everywhere():
    assert set(distckpt.__all__) == names_for_type_checkers() == set(distckpt._WHERE)
    assert dir(distckpt) == sorted(distckpt.__all__)
    assert len(set(distckpt.__all__)) == len(distckpt.__all__)


@pytest.mark.parametrize("name", distckpt.__all__)
def test_a_public_name_is_what_its_module_has(name):
    module = importlib.import_module(distckpt._WHERE[name])
    assert getattr(distckpt, name) is (
        module if name in distckpt._MODULES else getattr(module, name)
    )
    assert getattr(distckpt, name).__doc__


def test_any_other_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Checkpointmanager'"):
        distckpt.Checkpointmanager  # noqa: B018


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.startswith(IN_ROOMS) and m not in WITH_A_CLOCK]
)
def test_what_is_simulated_asks_the_host_for_time_chance_and_names(module):
    """Else the simulation would not be the same run twice."""
    text = (ROOT.parent / module.replace(".", "/")).with_suffix(".py").read_text()
    asked = re.findall(r"\btime\.(?:time|monotonic|sleep)\b|\bsecrets\.|\bsocket\.|getpid", text)
    assert asked == []


def test_the_version_is_that_of_the_package_and_needs_no_tensorflow():
    program = "import sys, distckpt; print(distckpt.__version__, 'tensorflow' in sys.modules)"
    assert re.fullmatch(r"\d+\.\d+\S* False\n", run(program))
