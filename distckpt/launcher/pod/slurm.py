"""The workers of a Slurm job step, from the variables that ``srun`` sets. Pure.

srun(1), "OUTPUT ENVIRONMENT VARIABLES", describes the variables; ``scontrol show hostnames``
expands lists of nodes such as ``gpu[01-03,7],login1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from distckpt.core.tf_config import decimal
from distckpt.errors import ConfigurationError

_GROUP = re.compile(r"([^,\[\]]*)\[([^\[\]]+)\]")
_COUNTS = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")
_MOST = 100_000  # nodes; a short list can expand to more names than memory can hold


def addresses(environ: Mapping[str, str], port: int) -> tuple[list[str], int]:
    """Returns "host:port" of all tasks of this job step, and the number of this task.

    Args:
      environ: The environment.
      port: The port of the first task of each node; each further task takes the next port.

    Raises:
      ConfigurationError: A variable is missing or makes no sense, or the tasks are not distributed
        in blocks, so that the node of a task is unknown.
    """
    nodes = expand(_get(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    counts = tasks_per_node(_get(environ, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    if len(counts) != len(nodes):
        raise ConfigurationError(
            f"Slurm names {len(nodes)} nodes, but tasks for {len(counts)} "
            "(SLURM_STEP_NODELIST, SLURM_STEP_TASKS_PER_NODE). Start the workers with srun."
        )
    tasks = [(node, n) for node, count in enumerate(counts) for n in range(count)]
    rank = _number(environ, "SLURM_PROCID")
    if rank >= len(tasks):
        raise ConfigurationError(
            f"SLURM_PROCID is {rank}, but there are {len(tasks)} tasks. Start the workers with "
            "srun."
        )
    here = (_number(environ, "SLURM_NODEID"), _number(environ, "SLURM_LOCALID"))
    if tasks[rank] != here:
        raise ConfigurationError(
            f"Task {rank} runs as number {here[1]} on node {here[0]}; with tasks in blocks it "
            f"would be number {tasks[rank][1]} on node {tasks[rank][0]}. Use srun "
            "--distribution=block."
        )
    if port + max(counts) - 1 > 65535:
        raise ConfigurationError(f"Port {port} is too high for {max(counts)} tasks on a node.")
    return [f"{nodes[node]}:{port + n}" for node, n in tasks], rank


def run_id(environ: Mapping[str, str]) -> str | None:
    """Returns an id that only the tasks of this start of the job step share, or None."""
    job, step = environ.get("SLURM_JOB_ID"), environ.get("SLURM_STEP_ID")
    if not job or not step:
        return None
    return f"slurm-{job}-{step}-{environ.get('SLURM_RESTART_COUNT') or '0'}"


def expand(nodes: str) -> list[str]:
    """Returns the names in a list of nodes.

    Raises:
      ConfigurationError: The list is invalid or too long.
    """
    found: list[str] = []
    for part in _split(nodes):
        found += _expand(part, nodes)
        if len(found) > _MOST:
            raise ConfigurationError(f"{nodes!r} stands for more than {_MOST} nodes.")
    return found


def tasks_per_node(counts: str) -> list[int]:
    """Returns how many tasks run on each node: [2, 2, 2, 1] for "2(x3),1".

    Raises:
      ConfigurationError: `counts` has another form, or stands for too many nodes.
    """
    found: list[int] = []
    for part in counts.split(","):
        match = _COUNTS.fullmatch(part.strip())
        times = int(match[2] or 1) if match and len(part) < 30 else 0
        if not match or not times or not int(match[1]) or len(found) + times > _MOST:
            raise ConfigurationError(f"{counts!r} is not a valid list of tasks per node.")
        found += [int(match[1])] * times
    return found


def _split(nodes: str) -> list[str]:
    """Returns the parts between commas outside brackets."""
    parts, depth = [""], 0
    for character in nodes:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _expand(part: str, nodes: str) -> list[str]:
    names, rest = [""], part.strip()
    if not rest:
        raise ConfigurationError(f"{nodes!r} is not a list of nodes.")
    while match := _GROUP.match(rest):
        numbers = [n for one in match[2].split(",") for n in _numbers(one.strip(), nodes)]
        if len(names) * len(numbers) > _MOST:
            raise ConfigurationError(f"{nodes!r} stands for more than {_MOST} nodes.")
        names = [name + match[1] + number for name in names for number in numbers]
        rest = rest[match.end() :]
    if "[" in rest or "]" in rest:
        raise ConfigurationError(f"{nodes!r} is not a list of nodes.")
    return [name + rest for name in names]


def _numbers(text: str, nodes: str) -> list[str]:
    """Returns ["01", "02", "03"] for "01-03"."""
    first, dash, last = text.partition("-")
    start, end = decimal(first), decimal(last if dash else first)
    if start is None or end is None or not 0 <= end - start < _MOST:
        raise ConfigurationError(f"{nodes!r} is not a list of nodes.")
    return [f"{n:0{len(first)}d}" for n in range(start, end + 1)]


def _get(environ: Mapping[str, str], *names: str) -> str:
    for name in names:
        if environ.get(name):
            return environ[name]
    raise ConfigurationError(f"Slurm has not set {names[0]}. Start the workers with srun.")


def _number(environ: Mapping[str, str], name: str) -> int:
    text = _get(environ, name)
    number = decimal(text)
    if number is None:
        raise ConfigurationError(f"{name} must be a number, got {text!r}.")
    return number
