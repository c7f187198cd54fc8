"""Which value of a metric is better, and what counts as a number."""

from __future__ import annotations

import pytest

from distckpt.keras.best_metric import Monitor, numbers_in


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("loss", False),
        ("val_loss", False),
        ("binary_crossentropy", False),
        ("mean_squared_error", False),
        ("val_accuracy", True),
        ("acc", True),
        ("auc_1", True),
        ("sparse_top_k_categorical_accuracy", True),
        ("val_precision", True),
    ],
)
def test_which_value_is_better(name, largest):
    monitor = Monitor(name, "auto")
    assert monitor.improves(2.0, 1.0) == largest
    assert monitor.improves(1.0, 2.0) != largest
    assert not monitor.improves(1.0, 1.0)
    assert monitor.improves(1.0, float("nan"))
    assert not monitor.improves(float("nan"), 1.0)
    assert not monitor.improves(float("nan"), float("nan"))


def test_what_is_a_number():
    assert numbers_in(None) == {}
    assert numbers_in({"a": 1, "b": [1.0, 2.0], "c": "text"}) == {"a": 1.0}
