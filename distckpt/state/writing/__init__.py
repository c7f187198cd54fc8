"""Writes tensor bundles: by code of this package, or by TensorFlow's operations."""
