"""The encoded description of a checkpoint's objects is what the protocol buffer library makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.protobuf import trackable_object_graph_pb2

from distckpt.core.tensorflow_format.object_graph import encode_attribute, encode_node

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
# Numbers and lengths of one, two, three and more bytes.
NUMBERS = st.one_of(st.integers(0, 300), st.integers(16_000, 17_000), st.integers(0, 2**31 - 1))
NODES = st.tuples(
    st.lists(st.tuples(NAMES, NUMBERS), max_size=4),
    st.lists(st.tuples(NAMES, NAMES, NAMES), max_size=3),
    st.booleans(),
)


@given(st.lists(NODES, max_size=4))
def test_a_graph_is_encoded_as_by_the_library(nodes):
    ours = b""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    for children, attributes, has_values in nodes:
        node = graph.nodes.add()
        for name, number in children:
            node.children.add(node_id=number, local_name=name)
        for name, full_name, key in attributes:
            node.attributes.add(name=name, full_name=full_name, checkpoint_key=key)
        node.has_checkpoint_values.value = has_values
        ours += encode_node(
            children, b"".join(encode_attribute(*a) for a in attributes), has_values
        )
    assert ours == graph.SerializeToString()
