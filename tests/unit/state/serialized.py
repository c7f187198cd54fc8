"""Compares our search for the tensors of a checkpoint with TensorFlow's own."""

from __future__ import annotations

from unittest import mock

import numpy as np
from tensorflow.python.checkpoint import save_util

from distckpt.state.search import object_tensors
from distckpt.state.search.object_walk import ObjectWalk
from distckpt.state.search.tensor_search import Survey, saving


def compare(checkpoint, *, split="all"):
    """Asserts that both find the same; returns whether ours left the whole graph to TensorFlow."""
    view = checkpoint._saver._graph_view
    with saving():
        _, _, _, proto = save_util.serialize_graph_view(view, None)
        walk = ObjectWalk(view)
        left = not object_tensors.is_regular(walk)
        assert object_tensors.serialize(walk).graph == proto.SerializeToString()
    ours = described(Survey(checkpoint, split))
    with mock.patch.object(object_tensors, "is_regular", return_value=False):
        theirs = described(Survey(checkpoint, split))
    assert ours == theirs
    return left


def described(found):
    """What a survey has found, in a form that can be compared."""
    assert not found.several_tasks
    return {
        "entries": sorted(found.entries, key=lambda entry: (entry.key, entry.spec)),
        "variables": {key: id(find()) for key, find in found.variables.items()},
        "read by all together, in this order": list(found.together),
        "asked at each save": sorted((asked.names, id(asked.find())) for asked in found._asked),
        "can be used again": found._reusable,
        "savers": found.savers,
        "values": {key: described_value(value) for key, value in found.ask().values.items()},
        "objects": [id(find()) for find in found._graph._find],
        "their children": (found._graph._leaves, found._graph._children),
    }


def described_value(tensor):
    if tensor.dtype == "variant":
        return tensor.dtype
    return (tensor.dtype, tensor.shape.as_list(), np.asarray(tensor.numpy()).tolist())
