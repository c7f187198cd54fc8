"""Why each checkpoint is kept or deleted: the decision of `tf_retention.sweep`, in words."""

from __future__ import annotations

import pytest

from distckpt.core import tf_retention
from distckpt.core.manifest import Retention
from distckpt.core.tf_retention import Kept
from distckpt.directory.catalog import View
from distckpt.inspection import inventory, keep_reasons

ACTIVE = tuple(Kept(f"ckpt-{n}", 3600.0 * n) for n in range(1, 6))


def item(name):
    return inventory.Item(
        name=name,
        state=inventory.UNMANAGED,
        problem="",
        bytes=1,
        newest=False,
        listed=True,
        manifest=None,
        time=None,
        pin=None,
        leases=(),
    )


@pytest.mark.parametrize("most", [None, 1, 3])
@pytest.mark.parametrize("hours", [None, 1.0, 2.0])
@pytest.mark.parametrize("keep", ["", "YoungerThan(hours=1.5)", "their.Policy()"])
def test_what_is_deleted_is_what_retention_deletes(most, hours, keep):
    rules, now = Retention(most, hours, keep), 3600.0 * 5
    why = keep_reasons.explain(
        [item(k.name) for k in ACTIVE], rules, View(ACTIVE, "ckpt-5", 0.0), set(), now
    )
    young = {k.name for k in ACTIVE if keep.startswith("Y") and k.timestamp > now - 1.5 * 3600.0}
    spared = {k.name for k in ACTIVE} if keep.startswith("their") else young
    swept = tf_retention.sweep(ACTIVE, 1 if keep and most is None else most, hours, 0.0, spared)
    deleted = {name for name, reason in why.items() if reason == keep_reasons.DELETED}
    assert deleted == {k.name for k in swept.victims}
    for kept in swept.preserved:
        assert why[kept.name] == f"keep_checkpoint_every_n_hours={hours:g}"


def test_the_rule_that_deletes():
    assert keep_reasons.of_deletion(Retention(2, None, "")) == "not one of the 2 newest"
    text = keep_reasons.of_deletion(Retention(None, None, "LastVerified()"))
    assert text == "not the newest, and no policy keeps it"
