"""TensorFlow's `checkpoint` file: which checkpoint is the newest, and which are managed.

A ``CheckpointState`` message in text form. Source:
``tensorflow/python/training/checkpoint_state.proto`` and ``update_checkpoint_state_internal`` in
``tensorflow/python/checkpoint/checkpoint_management.py``.
"""

from __future__ import annotations

import dataclasses
import math

from google.protobuf import text_format

from distckpt.core.tensorflow_format.protobuf_wire import DOUBLE, STRING, Field, message_class
from distckpt.errors import CheckpointDamagedError, reason

_Message = message_class(
    "CheckpointState",
    Field("model_checkpoint_path", 1, STRING),
    Field("all_model_checkpoint_paths", 2, STRING, repeated=True),
    Field("all_model_checkpoint_timestamps", 3, DOUBLE, repeated=True),
    Field("last_preserved_timestamp", 4, DOUBLE),
)


@dataclasses.dataclass(frozen=True)
class CheckpointState:
    """The content of a `checkpoint` file.

    Attributes:
      latest: Path of the newest checkpoint, absolute or relative to the file's directory.
      paths: Paths of the managed checkpoints, oldest first.
      timestamps: When each of `paths` was saved, in seconds since 1970; empty in files of programs
        that do not write them.
      last_preserved: When the checkpoint that was last exempted from deletion was saved, in seconds
        since 1970; None if the file does not say (TensorFlow takes that for 0, and never writes 0).
    """

    latest: str
    paths: tuple[str, ...] = ()
    timestamps: tuple[float, ...] = ()
    last_preserved: float | None = None


def parse(text: bytes) -> CheckpointState:
    """Returns the content of a `checkpoint` file. Paths are left as they are.

    Raises:
      CheckpointDamagedError: It is not such a file, or names no newest checkpoint (an empty file
        names none); TensorFlow then ignores or refuses it.
    """
    message = _Message()
    try:
        text_format.Merge(text.decode(), message)
    except (ValueError, text_format.ParseError) as error:
        raise CheckpointDamagedError(f"The `checkpoint` file is damaged: {_why(error)}.") from None
    if not message.model_checkpoint_path:
        raise CheckpointDamagedError("The `checkpoint` file names no newest checkpoint.")
    timestamps = tuple(message.all_model_checkpoint_timestamps)
    last_preserved = message.last_preserved_timestamp or None
    if not all(map(math.isfinite, (*timestamps, last_preserved or 0.0))):
        raise CheckpointDamagedError("The `checkpoint` file has a time that is not a number.")
    return CheckpointState(
        message.model_checkpoint_path,
        tuple(message.all_model_checkpoint_paths),
        timestamps,
        last_preserved,
    )


def _why(error: ValueError | text_format.ParseError) -> str:
    line = error.GetLine() if isinstance(error, text_format.ParseError) else None
    return reason(error) if line is None else f"line {line} cannot be read"


def render(state: CheckpointState) -> bytes:
    """Returns the content of a `checkpoint` file, byte for byte as TensorFlow writes it.

    Like TensorFlow it adds `latest` to the end of the paths if they do not end with it.

    Raises:
      ValueError: There are timestamps, but not one for each path; or a path is not valid Unicode.
    """
    paths = state.paths
    if not paths or paths[-1] != state.latest:
        paths = (*paths, state.latest)
    if state.timestamps and len(state.timestamps) != len(paths):
        raise ValueError(f"{len(state.timestamps)} timestamps for {len(paths)} paths")
    message = _Message(
        model_checkpoint_path=state.latest,
        all_model_checkpoint_paths=paths,
        all_model_checkpoint_timestamps=state.timestamps,
        last_preserved_timestamp=state.last_preserved,
    )
    return str(text_format.MessageToString(message)).encode()
