"""What no index can be made of."""

import pytest

from distckpt.core.tensorflow_format.index_writer import StoredTensor, make_index

FLOAT = 1


@pytest.mark.parametrize(
    ("spec", "shape", "text"),
    [
        ("", (4,), "'a' occurs twice"),
        ("4 0,2", (2,), "'a' 4 0,2 occurs twice"),
        ("4 0,4", (4,), "'a' 4 0,4 occurs twice"),  # stored as a whole tensor
    ],
)
def test_an_error_names_what_occurs_twice(spec, shape, text):
    tensor = StoredTensor("a", spec, FLOAT, shape, 0, 16, 0)
    with pytest.raises(ValueError, match=f"^{text}$"):
        make_index([tensor, tensor])
