"""The surroundings that `distckpt launch --workers 1` gives to a program."""

import json
import os

os.environ["DISTCKPT_RUN_ID"], os.environ["DISTCKPT_RESTART"] = "run", "0"
os.environ["TF_CONFIG"] = json.dumps(
    {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
)
