"""Restores a checkpoint into the objects of a program."""
