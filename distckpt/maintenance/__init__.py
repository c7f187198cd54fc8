"""Changes to a directory between jobs: imports, rollbacks, garbage collection."""
