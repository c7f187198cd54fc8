"""Input that a checkpoint can hold: what a worker reads next, under a `tf.distribute` strategy."""
