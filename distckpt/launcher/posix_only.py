"""Refuses systems without process groups and signals; imported first in the package."""

from distckpt.runtime import portable

portable.require("Starting workers", "your scheduler")
