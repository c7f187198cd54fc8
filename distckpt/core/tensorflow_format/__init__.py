"""Reads and writes TensorFlow's checkpoint files without TensorFlow. Pure."""
