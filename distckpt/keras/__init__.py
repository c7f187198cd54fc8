"""Checkpoints in Keras' `fit`: `CheckpointCallback`, for Keras 3 and for tf-keras."""

from distckpt.keras.callback import CheckpointCallback as CheckpointCallback

__all__ = ["CheckpointCallback"]
