"""`CheckpointManager`, and how it is assembled from the other packages."""
