"""Input pipelines under a `tf.distribute` strategy, whose position a checkpoint can hold."""
