"""Well-formed files with wrong content: nothing outside the directory may be touched."""

from __future__ import annotations

import copy
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distckpt.core import attempts, layout, listings, manifest_json
from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format import checkpoint_state, index_reader
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.leveldb_table import write_table
from distckpt.core.tensorflow_format.slice_encoding import encode_slice_key
from distckpt.directory.attempt_cleanup import TOMBSTONE, AttemptCleanup
from distckpt.directory.catalog import Catalog
from distckpt.errors import CheckpointDamagedError, DistckptError, ManifestError
from distckpt.storage.local import LocalStorage
from distckpt.testing.faulty_storage import FaultyStorage
from tests.unit.kit import bundles, lab

from . import sealed
from .mutations import HUGE, ODD
from .targets import NOW, targets

ATTEMPT = "00000001-000009-a1b2"
NAMES = [
    *("ckpt-1.index", "ckpt-1.manifest.json", "ckpt-1.data-00000-of-00001", "ckpt-1-vocabulary"),
    *("ckpt-1.worker-00000-of-00002.index", f"ckpt-1.pending-{ATTEMPT}", "ckpt-1.", "ckpt-1-"),
    *("ckpt-2", "ckpt-2.index", "ckpt-2.data-00000-of-00001", "ckpt-1-2.data-00000-of-00001"),
    *("ckpt-1-2.manifest.json", "ckpt-1/../../victim", "ckpt-1.\udcff", "ckpt-1.\ud800"),
    *(
        "../victim",
        "ckpt-1.\\..",
        "ckpt-1.\0",
        "checkpoint",
        ".distckpt",
        "ckpt-1",
        "ckpt-10.index",
    ),
]
NUMBERS = st.sampled_from([*HUGE, 1.5, "1", "9" * 20, float("nan"), float("inf"), True])
TEXTS = st.sampled_from([*NAMES, *ODD]) | st.text(max_size=8).map("ckpt-1.{}".format)
ANYTHING = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)


def _places(value, so_far=()):
    """Yields the path to every part of a JSON value."""
    if so_far:
        yield so_far
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*so_far, key))


HONEST = [json.loads(seed) for seed in targets()["fields"].seeds]
EDITS = [(number, path) for number, body in enumerate(HONEST) for path in _places(body)]
NAMING = [
    (n, path)
    for n, path in EDITS
    if path[-1] in ("name", "prefix") or path[:2] == ("replaces", "files")
]


@st.composite
def hostile_manifests(draw):
    """A manifest in which some values, above all names, are replaced."""
    number, _ = draw(st.sampled_from(EDITS))
    body = copy.deepcopy(HONEST[number])
    for _ in range(draw(st.integers(1, 4))):
        where = st.sampled_from(NAMING) | st.sampled_from(EDITS)
        _, path = draw(where.filter(lambda edit: edit[0] == number))
        value = draw(TEXTS | ANYTHING if path[-1] in ("name", "prefix") else ANYTHING)
        target = body
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit has replaced the part around it
    return sealed.manifest(json.dumps(body).encode())


@settings(deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
@given(hostile_manifests())
def test_a_manifest_that_is_believed_names_plain_files_of_its_checkpoint_alone(data):
    try:
        found = manifest_json.parse(data, "here")
    except ManifestError:
        return
    for part in (found, found.replaces and found.replaces.manifest):
        if part is not None:
            assert part.name == found.name
            assert part.index.name == layout.index_name(part.name)
            assert 0 <= min(part.order) <= max(part.order) < 10**18
            for file in part.claims:
                check_file(file, part.name)
            for state in part.worker_states:
                assert layout.index_name(state.prefix) in part.claims
                check_file(layout.data_name(state.prefix, 0, 1), part.name)


def check_file(file, checkpoint):
    """Checks which files a manifest allows to be deleted."""
    assert os.path.normpath(f"/run/{file}") == f"/run/{file}"
    assert os.path.dirname(f"/run/{file}") == "/run"
    assert "\0" not in os.fsencode(file).decode("latin-1")
    assert file.startswith((f"{checkpoint}.", f"{checkpoint}-"))
    listing = listings.classify([file, layout.index_name(checkpoint)])
    assert not listing.pending
    assert file not in (layout.index_name(checkpoint), layout.manifest_name(checkpoint))
    for other in set(listing.checkpoints) - {checkpoint}:
        assert layout.split_number(other)[1] is None, "it is a file of another checkpoint"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A directory with two checkpoints, and a file beside it."""
    root = tmp_path_factory.mktemp("honest")
    chief = lab.Chief(root / "run", max_to_keep=9)
    chief.save("ckpt-2", 2)
    chief.save("ckpt-1", 1, 3)
    (root / "victim").write_text("precious")
    (root / "run" / "ckpt-1-2.data-00000-of-00001").write_text("of another checkpoint")
    return root


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    hostile_manifests(), st.sampled_from([None, TOMBSTONE, layout.PREPARED_MANIFEST]), st.booleans()
)
def test_on_the_word_of_a_manifest_nothing_of_others_is_deleted(
    honest, tmp_path_factory, data, what, committed
):
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(honest, root, dirs_exist_ok=True)
    run = root / "run"
    if what is not None:
        folder = run / attempts.pending_name("ckpt-1", ATTEMPT)
        folder.mkdir()
        (folder / what).write_bytes(data)
    if committed:
        (run / "ckpt-1.manifest.json").write_bytes(data)
    chief = lab.Chief(run, max_to_keep=9)
    chief.ownership.take()
    AttemptCleanup(chief.storage, str(run), chief.ownership, durable=False).finish_all()
    chief.managed.delete(["ckpt-1"])
    for path in (p for p in honest.rglob("*") if p.is_file()):
        relative = path.relative_to(honest)
        if not path.name.startswith(("ckpt-1.", "checkpoint")):
            assert (root / relative).read_bytes() == path.read_bytes(), relative
    shutil.rmtree(root)


# --- Indexes

KEYS = st.sampled_from([b"a", b"w", b"\0", encode_slice_key(b"w", ((0, 2),)), b"\xff"])
INTS = st.sampled_from([0, 1, 2, 3, 8, -1, 2**31 - 1, -(2**31)])
LONGS = INTS | st.sampled_from([2**62, 2**63 - 1, -(2**63)])
EXTENTS = st.lists(st.none() | st.tuples(LONGS, LONGS), max_size=3).map(bundles.encode_extents)
ENTRIES = st.builds(
    proto.Entry,
    dtype=st.integers(-1, 40) | INTS,
    shape=st.lists(LONGS, max_size=3).map(bundles.encode_shape),
    shard_id=INTS,
    offset=LONGS,
    size=LONGS,
    slices=st.lists(EXTENTS, max_size=2),
)
HALF = bundles.bundle_files([("w", (4,), (2, 4), np.zeros(2, np.float32))])[0]


@st.composite
def hostile_indexes(draw):
    """An index with right checksums; most entries could be right."""
    version = proto.Version(producer=proto.VERSION).SerializeToString()
    header = proto.Header(num_shards=draw(st.just(3) | INTS), version=version)
    pairs = {b"": header.SerializeToString()}
    for key, entry in draw(st.dictionaries(KEYS, ENTRIES, max_size=4)).items():
        if draw(st.booleans()):
            entry.MergeFrom(
                proto.Entry(dtype=1, shape=bundles.encode_shape([2]), shard_id=1, size=8)
            )
        pairs[key] = entry.SerializeToString()
    return write_table(sorted(pairs.items()))


@settings(deadline=None, max_examples=400)
@given(hostile_indexes())
@example(HALF)
def test_an_index_that_is_believed_names_data_files_of_its_own_alone(data):
    try:
        index = index_reader.read_index(data)
    except CheckpointDamagedError:
        return
    for entry in index.stored:
        assert entry.offset >= 0
        assert entry.size >= 0
        file = layout.data_name("ckpt-1", entry.shard, index.num_shards)
        assert layout.parse_data_name(file) == ("ckpt-1", entry.shard, index.num_shards)
    try:
        merged = merge_indexes([data, HALF])
    except CheckpointDamagedError:
        return
    assert index_reader.read_index(merged).num_shards == index.num_shards + 1


# --- TensorFlow's file

PATHS = (
    st.sampled_from(["ckpt-1", "./ckpt-2", "{run}/ckpt-2", "{run}/../run/ckpt-1", "../victim"])
    | st.sampled_from(["/etc/passwd", "ckpt-1/../../victim", ".distckpt", "a\0b", "..", "x" * 300])
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
)
TIMES = st.sampled_from([0.0, 1.0, 1e18, -1e300, 1.7e308, NOW])


@st.composite
def hostile_pointers(draw):
    """A `checkpoint` file of any paths and times."""
    paths = tuple(draw(st.lists(PATHS, min_size=1, max_size=4)))
    times = draw(st.just(()) | st.tuples(*[TIMES] * len(paths)))
    last = draw(st.none() | TIMES)
    state = checkpoint_state.CheckpointState(paths[-1], paths, times, last)
    return checkpoint_state.render(state)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(hostile_pointers())
def test_a_checkpoint_file_that_is_believed_names_nothing_outside(honest, data):
    run = honest / "run"
    (run / "checkpoint").write_bytes(data.replace(b"{run}", os.fsencode(run)))
    storage = FaultyStorage(LocalStorage())
    catalog = Catalog(storage, str(run))
    view, named = catalog.view(NOW), catalog.candidates(NOW)
    assert set(named) == {"ckpt-1", "ckpt-2"}
    assert {view.latest, *(k.name for k in view.active)} <= {"ckpt-1", "ckpt-2", None}
    assert all(k.timestamp <= np.nextafter(NOW, np.inf) for k in view.active)
    catalog.pointer()
    for operation in storage.operations:
        for path in operation.paths:
            assert os.path.normpath(path).startswith(str(run)), operation


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode(errors="replace")))
def test_anything_else_in_its_place_is_passed_over(honest, data):
    (honest / "run" / "checkpoint").write_bytes(data)
    try:
        named = Catalog(LocalStorage(), str(honest / "run")).candidates(NOW)
    except DistckptError:
        return
    assert set(named) == {"ckpt-1", "ckpt-2"}
