"""TensorFlow's side: who am I, what is the state, how is it written."""
