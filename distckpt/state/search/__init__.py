"""Finds what is to be saved: the objects that a checkpoint tracks, and their tensors."""
