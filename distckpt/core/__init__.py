"""The pure part: data and decisions, no I/O, no clock, no TensorFlow."""
