from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distckpt.core import attempts, layout, listings, safe_names
from distckpt.errors import ConfigurationError, ManifestError

ATTEMPT = attempts.attempt_id(7, 12, "a1b2c3d4")
NAMES = st.text(min_size=1, max_size=20)
COUNTS = st.integers(0, 10**7)


# --- Paths


@pytest.mark.parametrize("directory", ["gs://bucket/run", "/data/run", "run", "run/", ""])
def test_paths_are_joined_as_tensorflow_joins_them(directory):
    assert layout.join(directory, "ckpt-1") == os.path.join(directory, "ckpt-1")


def test_private_folders_lie_in_the_directory():
    assert layout.terms_folder("gs://b/x") == "gs://b/x/.distckpt/terms"
    assert layout.quarantine_folder("gs://b/x") == "gs://b/x/.distckpt/quarantine"
    assert "gs://b/x/.distckpt/stalled" in layout.private_folders("gs://b/x")


# --- Names of checkpoints and their files


@pytest.mark.parametrize(
    "name", ["ckpt", "model.ckpt", "my model", "модель", "ckpt-5", "ab:c", "…", "x" * 150]
)
def test_plain_names_can_begin_the_names_of_checkpoints(name):
    assert safe_names.check_checkpoint_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "/ckpt", "a\\b", "C:ckpt", ".distckpt", "a\0"),
        *("a\nb", "a\udcff", 7, None, b"ckpt", "x" * 151, "й" * 76),
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigurationError, match="checkpoint_name="):
        safe_names.check_checkpoint_name(name)


@given(st.text())
def test_the_files_of_every_accepted_name_are_safe(checkpoint_name):
    try:
        safe_names.check_checkpoint_name(checkpoint_name)
    except ConfigurationError:
        return
    name = layout.numbered_name(checkpoint_name, 3)
    for file in (layout.index_name(name), layout.data_name(name, 0, 1), layout.manifest_name(name)):
        assert safe_names.safe_name(file, name) == file
    assert list(listings.classify([layout.index_name(name)]).checkpoints) == [name]


def test_the_files_of_a_checkpoint_have_tensorflows_names():
    name = layout.numbered_name("ckpt", 12)
    assert name == "ckpt-12"
    assert layout.index_name(name) == "ckpt-12.index"
    assert layout.data_name(name, 1, 4) == "ckpt-12.data-00001-of-00004"
    assert layout.manifest_name(name) == "ckpt-12.manifest.json"
    assert layout.worker_prefix(name, 1, 4) == "ckpt-12.worker-00001-of-00004"


@given(NAMES, COUNTS)
def test_the_number_of_a_checkpoint_can_be_read_from_its_name(name, number):
    assert layout.split_number(layout.numbered_name(name, number)) == (name, number)


@pytest.mark.parametrize("name", ["ckpt", "ckpt-", "-3", "ckpt-03", "ckpt-٣", "ckpt-" + "9" * 5000])
def test_a_name_that_nobody_numbered_has_no_number(name):
    assert layout.split_number(name) == (name, None)


@given(NAMES, COUNTS, st.integers(1, 10**7))
def test_what_a_data_file_is_can_be_read_from_its_name(name, shard, more):
    file = layout.data_name(name, shard, shard + more)
    assert layout.parse_data_name(file) == (name, shard, shard + more)


@pytest.mark.parametrize(
    "file",
    [
        "ckpt-1.data-00000-of-00001.tempstate123",
        "ckpt-1.data-0-of-1",
        "ckpt-1.data-000000-of-00001",
        "ckpt-1.data-00001-of-00001",
        "ckpt-1.data-00000-of-00000",
        "ckpt-1.data-00000-of-00001\n",
        ".data-00000-of-00001",
        "ckpt-1.data-٠٠٠٠٠-of-00001",
        f"ckpt-1.data-00000-of-{'9' * 5000}",
    ],
)
def test_only_exact_names_are_those_of_data_files(file):
    assert layout.parse_data_name(file) is None


@given(NAMES, COUNTS, st.integers(1, 10**7), COUNTS)
def test_whose_state_it_is_can_be_read_from_a_workers_prefix(name, worker, more, version):
    of = (name, worker, worker + more, version)
    prefix = layout.worker_prefix(*of)
    assert layout.parse_worker_prefix(prefix) == of
    for file in (layout.index_name(prefix), layout.data_name(prefix, 0, 1)):
        assert listings.parse_worker_file(file) == of


@pytest.mark.parametrize(
    "prefix",
    [
        "ckpt-1",
        "ckpt-1.worker-00002-of-00002",
        "a.worker-1-of-2",
        "a.worker-00001-of-00002.v0",
        "a.worker-00001-of-00002.v01",
        "a.worker-00001-of-00002.v",
    ],
)
def test_other_prefixes_are_not_of_workers(prefix):
    assert layout.parse_worker_prefix(prefix) is None


# --- Saves in progress


def test_the_term_can_be_read_from_an_attempt_id():
    assert ATTEMPT == "00000007-000012-a1b2c3d4"
    assert attempts.parse_attempt_id(ATTEMPT) == (7, 12, "a1b2c3d4")


@given(st.lists(st.tuples(st.integers(0, 10**8 - 1), st.integers(0, 10**6 - 1))))
def test_attempt_ids_sort_by_age(ages):
    ids = [attempts.attempt_id(term, sequence, "x") for term, sequence in ages]
    assert sorted(ids) == [attempts.attempt_id(e, s, "x") for e, s in sorted(ages)]


@pytest.mark.parametrize(
    "text", ["", "7-12-a", "00000007-000012", "000000007-000012-a", "x" + ATTEMPT]
)
def test_other_text_is_no_attempt_id(text):
    assert attempts.parse_attempt_id(text) is None


@given(NAMES, st.integers(0, 10**12), st.integers(0, 10**9), st.text("abcdef0189", min_size=1))
def test_checkpoint_and_attempt_can_be_read_from_a_pending_folder(name, term, sequence, token):
    folder = attempts.pending_name(name, attempts.attempt_id(term, sequence, token))
    assert attempts.parse_pending_name(folder) == (folder, name, (term, sequence, token))


@pytest.mark.parametrize(
    "folder", ["ckpt-1.pending-", "ckpt-1.pending-1-1-a", f".pending-{ATTEMPT}"]
)
def test_only_exact_names_are_those_of_pending_folders(folder):
    assert attempts.parse_pending_name(folder) is None


def test_no_workers_shard_begins_like_anothers():
    stems = [attempts.shard_stem(worker, 12) for worker in range(12)]
    assert stems[1] == "shard-00001-of-00012"
    assert not any(a != b and a.startswith(b) for a in stems for b in stems)


# --- The private folder


@given(st.integers(0, 10**12))
def test_the_term_can_be_read_from_the_name_of_its_file(term):
    assert layout.parse_term_name(layout.term_name(term)) == term


def test_term_files_have_eight_digits():
    assert layout.term_name(7) == "00000007.json"
    assert layout.parse_term_name("7.json") is None
    assert layout.parse_term_name("00000007.json.tmp") is None


def test_a_note_is_named_after_its_checkpoint():
    assert layout.note_name("ckpt-3") == "ckpt-3.json"


# --- Listings

FULL = [
    "checkpoint",
    ".distckpt",
    "ckpt-9.index",
    "ckpt-9.data-00000-of-00001",
    "ckpt-10.index",
    "ckpt-10.data-00001-of-00002",
    "ckpt-10.data-00000-of-00002",
    "ckpt-10.manifest.json",
    "ckpt-10.worker-00000-of-00002.index",
    "ckpt-10.worker-00000-of-00002.data-00000-of-00001",
    f"ckpt-12.pending-{attempts.attempt_id(8, 1, 'b')}",
    f"ckpt-11.pending-{attempts.attempt_id(7, 2, 'c')}",
    f"other/ckpt-3.{ATTEMPT}.json",
    "ckpt-11.data-00000-of-00001.tempstate77",
    "events.out.tfevents.1",
]


def test_a_listing_is_sorted_into_checkpoints_in_natural_order():
    listing = listings.classify(FULL)
    assert list(listing.checkpoints) == ["ckpt-9", "ckpt-10"]
    assert listing.checkpoints["ckpt-9"] == (
        "ckpt-9",
        True,
        False,
        ("ckpt-9.data-00000-of-00001",),
        (),
    )
    assert listing.checkpoints["ckpt-10"] == listings.CheckpointFiles(
        name="ckpt-10",
        has_index=True,
        has_manifest=True,
        data=("ckpt-10.data-00000-of-00002", "ckpt-10.data-00001-of-00002"),
        workers=(
            "ckpt-10.worker-00000-of-00002.data-00000-of-00001",
            "ckpt-10.worker-00000-of-00002.index",
        ),
    )


def test_pending_folders_come_by_age():
    assert [p.checkpoint for p in listings.classify(FULL).pending] == ["ckpt-11", "ckpt-12"]


def test_what_is_not_understood_belongs_to_nobody():
    assert set(listings.classify(FULL).others) == {
        "checkpoint",
        ".distckpt",
        f"other/ckpt-3.{ATTEMPT}.json",
        "ckpt-11.data-00000-of-00001.tempstate77",
        "events.out.tfevents.1",
    }


@pytest.mark.parametrize(
    "name", ["ckpt-1.manifest.json", "ckpt-1.data-00000-of-00001", "ckpt-1.index", "a.index.index"]
)
def test_an_incomplete_checkpoint_is_listed_with_what_it_has(name):
    (found,) = listings.classify([name]).checkpoints.values()
    assert found.has_index == name.endswith(".index")
    assert found.has_manifest == name.endswith(".manifest.json")
    assert found.data == ((name,) if "data" in name else ())


def test_a_checkpoint_named_like_a_workers_state_keeps_its_files():
    odd = "x.worker-00000-of-00001.y-3"
    listing = listings.classify([layout.index_name(odd), layout.data_name(odd, 0, 1)])
    assert list(listing.checkpoints) == [odd]


@given(st.lists(st.sampled_from(FULL) | st.text(max_size=30), unique=True))
def test_no_name_gets_lost_in_a_listing(names):
    listing = listings.classify(names)
    found = [*listing.others, *(p.folder for p in listing.pending)]
    for name, files in listing.checkpoints.items():
        found += [*files.data, *files.workers]
        found += [layout.index_name(name)] * files.has_index
        found += [layout.manifest_name(name)] * files.has_manifest
    assert sorted(found) == sorted(names)


# --- Trust


@pytest.mark.parametrize("name", ["ckpt-1.index", "…", ".hidden", "..a", "a b", "-rf"])
def test_the_name_of_a_file_in_the_directory_is_safe(name):
    assert safe_names.safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "..\\x", "C:x", "C:\\x", "c:"),
        *("a\0b", None, 3, ["x"], b"x"),
    ],
)
def test_a_name_that_leaves_the_directory_is_refused(name):
    with pytest.raises(ManifestError, match="not safe"):
        safe_names.safe_name(name)


@given(st.text())
def test_a_safe_name_stays_in_the_directory(name):
    try:
        safe = safe_names.safe_name(name)
    except ManifestError:
        return
    assert os.path.dirname(os.path.normpath(os.path.join("/d", safe))) == "/d"


def test_a_manifest_may_name_only_its_own_checkpoints_files():
    for name in ("ckpt-1.data-00000-of-00001", "ckpt-1-Custom.Saver", "ckpt-1-Custom.Saver.index"):
        assert safe_names.safe_name(name, "ckpt-1")
    others = ("ckpt-11.index", "ckpt-2.index", "ckpt-1-2.index", "ckpt-1-2.data-00000-of-00001")
    others += (f"ckpt-1.pending-{ATTEMPT}", "ckpt-1-2.manifest.json")
    for name in (*others, "checkpoint", ".distckpt", "ckpt-1"):
        with pytest.raises(ManifestError, match="not one of the files of ckpt-1"):
            safe_names.safe_name(name, "ckpt-1")


def test_half_a_character_is_no_file_name():
    """JSON may hold it; every call with it would raise UnicodeEncodeError, and no OSError."""
    with pytest.raises(ManifestError, match="no file name can have"):
        safe_names.safe_name("ckpt-1.\ud800")
    assert safe_names.safe_name("ckpt-1.\udcff") == "ckpt-1.\udcff"  # a byte that is not UTF-8
