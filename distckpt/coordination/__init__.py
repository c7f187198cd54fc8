"""Coordinates the workers of a job: the port (`base`) and its adapters.

`tensorflow_service` uses the coordination service that `tf.distribute` runs anyway;
`shared_directory` is for processes without a TensorFlow cluster; `in_process` for one worker, and
for tests with threads. The simulated packages use only `base`.
"""
