"""What a manifest says: its order, its files, and which version is in force."""

from __future__ import annotations

import pytest

from distckpt.core.manifest import Replaced
from distckpt.errors import ManifestError

from .manifests import OLD, SWITCH, example_manifest


def test_newer_means_term_and_then_order_of_commits():
    orders = [example_manifest(term=e, sequence=s).order for e, s in [(1, 9), (2, 1), (2, 10)]]
    assert orders == sorted(orders)


def test_bytes_are_those_of_all_files_but_the_manifest():
    assert example_manifest().bytes == 300 + 4096


def test_claims_are_the_data_files_of_both_versions():
    assert example_manifest().claims == {"ckpt-12.data-00000-of-00001"}
    assert SWITCH.claims == {"ckpt-12.data-00000-of-00001", "ckpt-12.data-00000-of-00002"}


def test_the_index_on_disk_tells_which_version_is_in_force():
    assert SWITCH.in_force(7) is SWITCH
    assert SWITCH.in_force(5) is OLD
    plain = example_manifest(replaces=Replaced(OLD.index, (), None))
    assert plain.in_force(5) is None
    with pytest.raises(ManifestError, match="not the index that the manifest of ckpt-12"):
        SWITCH.in_force(6)
    with pytest.raises(ManifestError):
        example_manifest().in_force(5)
