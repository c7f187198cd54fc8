"""Refuses systems without process groups and signals; imported before all else of the package."""

from distckpt import portable

portable.require("Starting workers", "what your scheduler has for that")
