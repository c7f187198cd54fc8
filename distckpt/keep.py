"""Retention policies: which checkpoints are kept besides the `max_to_keep` newest.

Each policy is a reason to keep a checkpoint. Policies compose with ``|`` and ``&`` and are given to
a manager as `ManagerOptions.keep`:

    EverySteps(1000) | Best(3, "val_loss")           every 1,000 steps, and the three best
    EverySteps(1000) & YoungerThan(hours=48)         every 1,000 steps, for two days
    YoungerThan(hours=48)                            time to live: nothing is deleted for two days

A checkpoint is deleted when there is no reason to keep it: it is not among the ``max_to_keep``
newest, no policy keeps it, it is not pinned (``distckpt pin``) and no reader holds a lease on it.
With ``max_to_keep=None`` and a policy, the policy alone decides; the newest is always kept.

A policy is a pure function of the list of checkpoints: managers and ``distckpt ls --why``, which
reads the policy from the newest manifest, reach the same decision. A checkpoint that a policy keeps
is still kept when newer ones follow; only `Best`, `YoungerThan` and `LastVerified` may drop it.

The design follows Orbax's ``preservation_policy``.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distckpt.arguments import is_integer, is_number, refuse_steps, sorted_steps
from distckpt.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a policy knows of a checkpoint.

    Attributes:
      name: The checkpoint's name.
      time: When it was saved, in seconds since 1970.
      step: The training step; None if unknown (saved by plain TensorFlow).
      metrics: The metrics given to ``save(metrics=…)``.
      verified: Whether every byte has been verified since the save.
    """

    name: str
    time: float
    step: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    verified: bool = False


class KeepPolicy(abc.ABC):
    """Says which checkpoints to keep, and why. Immutable. Only the chief evaluates it."""

    @abc.abstractmethod
    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """Returns the checkpoints to keep: name → a short reason.

        Args:
          checkpoints: All managed checkpoints, oldest first, including the newest.
          now: The time, in seconds since 1970.
        """

    def __repr__(self) -> str:
        """Returns a text from which `parse` builds an equal policy."""
        if not dataclasses.is_dataclass(self):
            return super().__repr__()
        fields = dataclasses.fields(self)
        values = [getattr(self, field.name) for field in fields]
        while values and values[-1] == fields[len(values) - 1].default:
            values.pop()
        return f"{type(self).__name__}({', '.join(map(repr, values))})"

    def __or__(self, other: KeepPolicy) -> KeepPolicy:
        """Returns a policy that keeps what either policy keeps."""
        return Either(self, other)

    def __and__(self, other: KeepPolicy) -> KeepPolicy:
        """Returns a policy that keeps what both policies keep."""
        return Both(self, other)

    def __bool__(self) -> bool:
        """Raises ConfigurationError: ``a or b`` would silently mean ``a``."""
        raise ConfigurationError("Combine keep policies with | and &, not with or, and and not.")


@dataclasses.dataclass(frozen=True, repr=False)
class Either(KeepPolicy):
    """Keeps what `first` or `second` keeps; the result of ``|``."""

    first: KeepPolicy
    second: KeepPolicy

    def __post_init__(self) -> None:
        _check_policies("|", self.first, self.second)

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        found = self.first.reasons(checkpoints, now)
        for name, why in self.second.reasons(checkpoints, now).items():
            found[name] = f"{found[name]}; {why}" if name in found else why
        return found

    def __repr__(self) -> str:
        return f"({self.first!r} | {self.second!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class Both(KeepPolicy):
    """Keeps what both `first` and `second` keep; the result of ``&``."""

    first: KeepPolicy
    second: KeepPolicy

    def __post_init__(self) -> None:
        _check_policies("&", self.first, self.second)

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        one, other = (p.reasons(checkpoints, now) for p in (self.first, self.second))
        return {name: f"{why} and {other[name]}" for name, why in one.items() if name in other}

    def __repr__(self) -> str:
        return f"({self.first!r} & {self.second!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class EverySteps(KeepPolicy):
    """Keeps the first checkpoint at or after each multiple of `steps`."""

    steps: int

    def __post_init__(self) -> None:
        refuse_steps(self.steps)

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        found: dict[str, str] = {}
        done: set[int] = set()
        for step, name in _by_step(checkpoints):
            multiple = step // self.steps
            if multiple > 0 and multiple not in done:
                done.add(multiple)
                found[name] = f"first at or after step {multiple * self.steps}"
        return found


@dataclasses.dataclass(frozen=True, repr=False)
class AtSteps(KeepPolicy):
    """Keeps the first checkpoint at or after each of `steps`."""

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        object.__setattr__(self, "steps", sorted_steps(steps))

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        ordered = _by_step(checkpoints)
        found: dict[str, str] = {}
        for wanted in self.steps:
            name = next((name for step, name in ordered if step >= wanted), None)
            if name is not None:
                found.setdefault(name, f"first at or after step {wanted}")
        return found


@dataclasses.dataclass(frozen=True, repr=False)
class EveryHours(KeepPolicy):
    """Keeps the oldest checkpoint, and then each one at least `hours` after the last one kept.

    Unlike with ``keep_checkpoint_every_n_hours``, the manager still lists these checkpoints.
    """

    hours: float

    def __post_init__(self) -> None:
        _check_hours("EveryHours", self.hours)

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        found: dict[str, str] = {}
        last = -math.inf
        for checkpoint in sorted(checkpoints, key=lambda c: c.time):
            if checkpoint.time - last >= self.hours * 3600.0:
                last = checkpoint.time
                found[checkpoint.name] = f"one every {self.hours:g} h"
        return found


@dataclasses.dataclass(frozen=True, repr=False)
class YoungerThan(KeepPolicy):
    """Keeps checkpoints for `hours` after they were saved: a time to live, by the chief's clock."""

    hours: float

    def __post_init__(self) -> None:
        _check_hours("YoungerThan", self.hours)

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        oldest = now - self.hours * 3600.0
        return {c.name: f"younger than {self.hours:g} h" for c in checkpoints if c.time >= oldest}


@dataclasses.dataclass(frozen=True, repr=False)
class Best(KeepPolicy):
    """Keeps the `count` best checkpoints by a metric given to ``save(metrics={…})``.

    Of two checkpoints with equal values, the older one is better. A checkpoint without the metric,
    or with NaN, is never among the best; infinite values are ranked like others.

    Attributes:
      count: How many.
      metric: The metric's name.
      mode: "min" if less is better, or "max".
    """

    count: int
    metric: str
    mode: str = "min"

    def __post_init__(self) -> None:
        if not is_integer(self.count) or self.count < 1:
            raise ConfigurationError(f"Best takes a positive count, got {self.count!r}.")
        if not isinstance(self.metric, str) or not self.metric:
            raise ConfigurationError(f"Best takes the name of a metric, got {self.metric!r}.")
        if self.mode not in ("min", "max"):
            raise ConfigurationError(f'Best takes the mode "min" or "max", got {self.mode!r}.')

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        sign = 1.0 if self.mode == "min" else -1.0
        ranked = sorted(
            (sign * value, position, c.name, value)
            for position, c in enumerate(checkpoints)
            if not math.isnan(value := c.metrics.get(self.metric, math.nan))
        )
        return {
            name: f"number {place} by {self.metric} ({value:g})"
            for place, (_, _, name, value) in enumerate(ranked[: self.count], start=1)
        }


@dataclasses.dataclass(frozen=True, repr=False)
class LastVerified(KeepPolicy):
    """Keeps the newest checkpoint of which every byte has been verified.

    A restore verifies (``ManagerOptions.verify_on_restore``), and so does ``distckpt verify
    --note``. If newer checkpoints turn out to be damaged, this one is known to be good.
    """

    def reasons(self, checkpoints: Sequence[Checkpoint], now: float) -> dict[str, str]:
        """See the base class."""
        names = [c.name for c in checkpoints if c.verified]
        return {names[-1]: "the last verified"} if names else {}


_POLICIES: dict[str, type[KeepPolicy]] = {
    policy.__name__: policy
    for policy in (EverySteps, AtSteps, EveryHours, YoungerThan, Best, LastVerified)
}


def parse(text: str) -> KeepPolicy:
    """Returns the policy that `text`, written by ``repr``, describes. No code is executed.

    Args:
      text: E.g. "EverySteps(1000) | Best(3, 'val_loss')".

    Raises:
      ConfigurationError: The text describes no policy.
    """
    try:
        return _build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        known = ", ".join(sorted(_POLICIES))
        raise ConfigurationError(
            f"{text!r} is not a keep policy ({_why(error)}). Write e.g. "
            f"\"EverySteps(1000) | Best(3, 'val_loss')\"; combine {known} with | and &."
        ) from None


def _why(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if text.startswith("malformed node"):
        return "an argument is neither a number nor a text in quotes"
    return text.removesuffix(".").replace(".__init__()", "()")


def check_metrics(policy: KeepPolicy, checkpoints: Sequence[Checkpoint]) -> None:
    """Checks that each metric by which a policy chooses is one that some checkpoint has.

    Otherwise a misspelt name would keep nothing, and all checkpoints but the newest would go.

    Raises:
      ConfigurationError: No checkpoint has a metric of that name; the text lists the known names.
    """
    known = {name for checkpoint in checkpoints for name in checkpoint.metrics}
    for metric in sorted(_metrics_of(policy) - known):
        raise ConfigurationError(
            f"No checkpoint has the metric {metric!r}, by which {policy!r} chooses. Metrics are "
            f"recorded by save(metrics=…); there are: {', '.join(sorted(known)) or 'none'}."
        )


def _metrics_of(policy: KeepPolicy) -> set[str]:
    if isinstance(policy, Either | Both):
        return _metrics_of(policy.first) | _metrics_of(policy.second)
    return {policy.metric} if isinstance(policy, Best) else set()


def _build(node: ast.expr) -> KeepPolicy:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Either(_build(node.left), _build(node.right))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        return Both(_build(node.left), _build(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in _POLICIES:
            raise ValueError(f"there is no {node.func.id}")
        arguments = [ast.literal_eval(argument) for argument in node.args]
        named: dict[str, Any] = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
        return _POLICIES[node.func.id](*arguments, **named)
    raise ValueError("neither a policy nor a combination of policies")


def _by_step(checkpoints: Sequence[Checkpoint]) -> list[tuple[int, str]]:
    """Returns (step, name) of the checkpoints with a step, by step, then oldest first."""
    known = [(c.step, c.name) for c in checkpoints if c.step is not None]
    return sorted(known, key=lambda row: row[0])


def _check_policies(operator: str, *policies: object) -> None:
    for policy in policies:
        if not isinstance(policy, KeepPolicy):
            raise ConfigurationError(f"{operator} combines two keep policies, got {policy!r}.")


def _check_hours(name: str, hours: object) -> None:
    if not is_number(hours) or not 0 < hours < math.inf:
        raise ConfigurationError(f"{name} takes a positive number of hours, got {hours!r}.")
