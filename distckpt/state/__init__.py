"""TensorFlow's side: finds, captures, writes and restores the state."""
