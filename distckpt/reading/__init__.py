"""Reads tensors of checkpoints, and waits for new checkpoints. Any process."""
