"""``distckpt doctor``: tests whether a directory can hold checkpoints."""
