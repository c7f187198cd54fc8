"""A program on its own: what `as_worker` has set is gone."""

import os

os.environ.pop("TF_CONFIG", None)
