"""Where checkpoints are kept: the port (`base`) and its adapters.

`local` writes POSIX files and flushes them to stable storage; `gfile` reaches whatever TensorFlow
can open (``gs://``, ``hdfs://``, ``ram://``); `choose` picks one of them by the directory's name.
The simulated packages use only `base`. `temporary` makes the names of files that are still being
written; `obstacles` explains why a directory cannot be used.
"""
