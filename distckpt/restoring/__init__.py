"""One restore: all workers verify and then restore the same checkpoint."""
