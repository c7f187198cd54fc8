"""Checkpoints in Keras' `fit`: `CheckpointCallback`, for Keras 3 and for tf-keras."""

try:
    from distckpt.keras.callback import CheckpointCallback as CheckpointCallback
except ModuleNotFoundError as error:
    from distckpt.runtime import tf_version

    raise tf_version.explained(error, "distckpt.keras") from None

__all__ = ["CheckpointCallback"]
