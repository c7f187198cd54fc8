"""The contract of storage adapters, clause by clause.

Subclass `StorageContract` in a test module and define the fixtures; pytest then runs every clause
against your adapter (as in zarr-python's ``testing/store.py``):

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            return MyStorage()

        @pytest.fixture
        def root(self):
            return "my://new-and-empty-directory"
"""

# ruff: noqa: D102 - the name of a clause says what it requires.

from __future__ import annotations

import errno
import threading
import time

import pytest

from distckpt.storage import base, temporary
from distckpt.testing.threads import run_in_threads

_BLOB = bytes(range(256)) * 64


class StorageContract:
    """The clauses of `distckpt.storage.base.Storage`; override the fixtures.

    Attributes:
      exclusive: Whether `create` lets exactly one of several simultaneous callers succeed. Two must
        never succeed.
    """

    exclusive = True

    @pytest.fixture
    def storage(self) -> base.Storage:
        """Returns the adapter under test."""
        raise NotImplementedError("a subclass of StorageContract defines the fixture `storage`")

    @pytest.fixture
    def root(self) -> str:
        """Returns the path of an existing, empty directory, without a slash at its end."""
        raise NotImplementedError("a subclass of StorageContract defines the fixture `root`")

    # --- Metadata and listings ------------------------------------------------------------------

    def test_nothing_is_at_a_path_that_was_never_written(
        self, storage: base.Storage, root: str
    ) -> None:
        assert not storage.exists(f"{root}/a")
        assert not storage.is_directory(f"{root}/a")
        assert not storage.exists(f"{root}/a/b")

    def test_a_file_exists_and_is_no_directory(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"", durable=False)
        assert storage.exists(f"{root}/a")
        assert not storage.is_directory(f"{root}/a")

    def test_a_directory_exists_and_is_one(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/a")
        assert storage.exists(f"{root}/a")
        assert storage.is_directory(f"{root}/a")

    def test_after_freshening_a_listing_is_up_to_date(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/a")
        assert storage.list(f"{root}/a") == []
        storage.write(f"{root}/a/b", b"", durable=False)
        storage.freshen(f"{root}/a")
        assert storage.list(f"{root}/a") == ["b"], "nothing may be left over"

    def test_a_file_has_the_time_at_which_it_was_written_or_none(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.write(f"{root}/a", b"x", durable=False)
        written = storage.modified(f"{root}/a")
        assert written is None or abs(written - time.time()) < 60

    def test_free_space_is_a_number_of_bytes_or_unknown(
        self, storage: base.Storage, root: str
    ) -> None:
        free = storage.free(root)
        assert free is None or free >= 0

    def test_size_counts_bytes(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", _BLOB, durable=False)
        storage.write(f"{root}/empty", b"", durable=False)
        assert storage.size(f"{root}/a") == len(_BLOB)
        assert storage.size(f"{root}/empty") == 0

    def test_size_of_an_absent_file_is_an_error(self, storage: base.Storage, root: str) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            storage.size(f"{root}/a")
        assert caught.value.errno == errno.ENOENT
        assert "/a" in str(caught.value)

    def test_size_of_a_directory_is_an_error(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/a")
        with pytest.raises(IsADirectoryError):
            storage.size(f"{root}/a")

    def test_a_listing_is_sorted_and_holds_names_only(
        self, storage: base.Storage, root: str
    ) -> None:
        for name in ("b", "a-10", "a-9", "C"):
            storage.write(f"{root}/{name}", b"x", durable=False)
        storage.make_directory(f"{root}/folder")
        storage.write(f"{root}/folder/inner", b"x", durable=False)
        assert storage.list(root) == ["C", "a-10", "a-9", "b", "folder"]

    def test_a_listing_leaves_out_neighbours_whose_names_begin_alike(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/ckpt")
        storage.make_directory(f"{root}/ckpt-2")
        for name in ("ckpt/a", "ckpt-2/b", "ckpt-1"):
            storage.write(f"{root}/{name}", b"x", durable=False)
        assert storage.list(f"{root}/ckpt") == ["a"]

    def test_an_absent_or_empty_directory_lists_nothing(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/empty")
        assert storage.list(f"{root}/empty") == []
        assert storage.list(f"{root}/absent") == []

    def test_listing_a_file_is_an_error(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"x", durable=False)
        with pytest.raises(NotADirectoryError):
            storage.list(f"{root}/a")

    # --- Reading --------------------------------------------------------------------------------

    @pytest.mark.parametrize("data", [b"", b"\x00", b"line\r\n", _BLOB], ids=len)
    def test_what_was_written_is_read(self, storage: base.Storage, root: str, data: bytes) -> None:
        storage.write(f"{root}/a", data, durable=True)
        assert storage.read(f"{root}/a") == data

    @pytest.mark.parametrize(
        ("offset", "size", "expected"),
        [
            (0, 3, b"012"),
            (2, 3, b"234"),
            (7, None, b"789"),
            (8, 5, b"89"),
            (4, 0, b""),
            (10, None, b""),
            (10, 1, b""),
            (99, None, b""),
            (99, 1, b""),
        ],
    )
    def test_a_part_is_read(
        self, storage: base.Storage, root: str, offset: int, size: int | None, expected: bytes
    ) -> None:
        storage.write(f"{root}/a", b"0123456789", durable=False)
        assert storage.read(f"{root}/a", offset, size) == expected

    @pytest.mark.parametrize("size", [None, 0, 1])
    def test_reading_an_absent_file_is_an_error(
        self, storage: base.Storage, root: str, size: int | None
    ) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            storage.read(f"{root}/a", 0, size)
        assert caught.value.errno == errno.ENOENT

    def test_reading_a_directory_is_an_error(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/a")
        with pytest.raises(IsADirectoryError):
            storage.read(f"{root}/a")

    # --- Making directories ---------------------------------------------------------------------

    def test_a_directory_is_made_with_its_parents_and_again(
        self, storage: base.Storage, root: str
    ) -> None:
        for _ in range(2):
            storage.make_directory(f"{root}/a/b/c")
        assert storage.is_directory(f"{root}/a/b/c")
        assert storage.list(f"{root}/a") == ["b"]

    def test_a_directory_is_not_made_over_a_file(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"kept", durable=False)
        with pytest.raises((FileExistsError, NotADirectoryError)):
            storage.make_directory(f"{root}/a")
        assert storage.read(f"{root}/a") == b"kept"

    # --- Writing --------------------------------------------------------------------------------

    def test_a_write_replaces_the_whole_content(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"a long content", durable=True)
        storage.write(f"{root}/a", b"short", durable=True)
        assert storage.read(f"{root}/a") == b"short"

    def test_a_write_leaves_one_file(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"1", durable=False)
        storage.write(f"{root}/a", b"2", durable=True)
        storage.create(f"{root}/b", b"3", durable=True)
        assert storage.list(root) == ["a", "b"]

    def test_a_write_onto_a_directory_is_an_error_and_leaves_it_alone(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/a")
        storage.write(f"{root}/a/inner", b"kept", durable=False)
        with pytest.raises(IsADirectoryError):
            storage.write(f"{root}/a", b"x", durable=False)
        assert storage.read(f"{root}/a/inner") == b"kept"
        assert storage.list(root) == ["a"], "the temporary file has stayed behind"

    def test_a_reader_sees_the_old_content_or_the_new_but_never_a_mixture(
        self, storage: base.Storage, root: str
    ) -> None:
        contents = {bytes([65 + n]) * (1000 + 50_000 * n) for n in range(4)}
        storage.write(f"{root}/a", b"A" * 1000, durable=False)
        finished = threading.Event()

        def write_in_turn() -> None:
            for _ in range(25):
                for content in contents:
                    storage.write(f"{root}/a", content, durable=False)
            finished.set()

        writer = threading.Thread(target=write_in_turn)
        writer.start()
        seen = set()
        while not finished.is_set():
            seen.add(storage.read(f"{root}/a"))
        writer.join()
        assert seen <= contents, f"sizes read: {sorted(map(len, seen))}"

    # --- Creating -------------------------------------------------------------------------------

    @pytest.mark.parametrize("durable", [False, True])
    def test_a_created_file_holds_its_content(
        self, storage: base.Storage, root: str, durable: bool
    ) -> None:
        storage.create(f"{root}/a", _BLOB, durable=durable)
        assert storage.read(f"{root}/a") == _BLOB

    def test_creating_what_exists_is_an_error_and_changes_nothing(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.create(f"{root}/a", b"first", durable=True)
        with pytest.raises(FileExistsError) as caught:
            storage.create(f"{root}/a", b"second", durable=True)
        assert caught.value.errno == errno.EEXIST
        assert storage.read(f"{root}/a") == b"first"
        assert storage.list(root) == ["a"], "the temporary file has stayed behind"

    def test_creating_over_a_directory_is_an_error(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/a")
        with pytest.raises(FileExistsError):
            storage.create(f"{root}/a", b"x", durable=False)
        assert storage.is_directory(f"{root}/a")

    def test_of_many_that_create_at_once_one_succeeds_at_the_most(
        self, storage: base.Storage, root: str
    ) -> None:
        for attempt in range(20):
            path = f"{root}/term-{attempt}"
            winners = _winners(storage, path)
            assert len(winners) == 1 or (not winners and not self.exclusive)
            assert storage.exists(path) == bool(winners)
            if winners:
                assert storage.read(path) == b"%d" % winners[0]
        assert not any(map(temporary.is_temporary, storage.list(root)))

    # --- Renaming -------------------------------------------------------------------------------

    def test_a_rename_moves_a_file(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/folder")
        storage.write(f"{root}/a", _BLOB, durable=False)
        storage.rename(f"{root}/a", f"{root}/folder/b")
        assert storage.read(f"{root}/folder/b") == _BLOB
        assert not storage.exists(f"{root}/a")

    def test_a_rename_replaces_a_file(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"new", durable=False)
        storage.write(f"{root}/b", b"old and longer", durable=False)
        storage.rename(f"{root}/a", f"{root}/b")
        assert storage.read(f"{root}/b") == b"new"
        assert storage.list(root) == ["b"]

    def test_a_rename_moves_a_directory_with_all_in_it(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/a/deep")
        storage.write(f"{root}/a/deep/file", b"1", durable=False)
        storage.write(f"{root}/a/file", b"2", durable=False)
        storage.write(f"{root}/ab", b"a neighbour whose name begins alike", durable=False)
        storage.rename(f"{root}/a", f"{root}/b")
        assert storage.list(root) == ["ab", "b"]
        assert storage.list(f"{root}/b") == ["deep", "file"]
        assert storage.read(f"{root}/b/deep/file") == b"1"

    def test_renaming_what_is_absent_is_an_error(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/b", b"kept", durable=False)
        with pytest.raises(FileNotFoundError):
            storage.rename(f"{root}/a", f"{root}/b")
        assert storage.read(f"{root}/b") == b"kept"

    def test_a_file_is_not_renamed_onto_a_directory(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/folder")
        storage.write(f"{root}/folder/inner", b"kept", durable=False)
        storage.write(f"{root}/a", b"kept too", durable=False)
        with pytest.raises(IsADirectoryError):
            storage.rename(f"{root}/a", f"{root}/folder")
        assert storage.read(f"{root}/folder/inner") == b"kept"
        assert storage.read(f"{root}/a") == b"kept too"

    # --- Removing -------------------------------------------------------------------------------

    def test_a_removed_file_is_gone_and_may_be_removed_again(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.write(f"{root}/a", b"x", durable=False)
        storage.write(f"{root}/b", b"x", durable=False)
        for _ in range(2):
            storage.remove(f"{root}/a")
        assert storage.list(root) == ["b"]

    def test_remove_does_not_take_a_directory(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/a")
        with pytest.raises(OSError, match="/a"):
            storage.remove(f"{root}/a")
        assert storage.is_directory(f"{root}/a")

    def test_a_removed_tree_is_gone_and_its_neighbours_are_not(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.make_directory(f"{root}/a/b/c")
        for name in ("a/1", "a/b/2", "a/b/c/3", "ab"):
            storage.write(f"{root}/{name}", b"x", durable=False)
        for _ in range(2):
            storage.remove_tree(f"{root}/a")
        assert storage.list(root) == ["ab"]

    def test_remove_tree_does_not_take_a_file(self, storage: base.Storage, root: str) -> None:
        storage.write(f"{root}/a", b"kept", durable=False)
        with pytest.raises(NotADirectoryError):
            storage.remove_tree(f"{root}/a")
        assert storage.read(f"{root}/a") == b"kept"

    # --- Flushing -------------------------------------------------------------------------------

    def test_files_and_directories_can_be_flushed(self, storage: base.Storage, root: str) -> None:
        storage.make_directory(f"{root}/folder")
        storage.write(f"{root}/folder/a", _BLOB, durable=False)
        storage.flush(f"{root}/folder/a")
        storage.flush_directory(f"{root}/folder")
        assert storage.read(f"{root}/folder/a") == _BLOB

    def test_flushing_an_absent_file_is_an_error(self, storage: base.Storage, root: str) -> None:
        with pytest.raises(FileNotFoundError):
            storage.flush(f"{root}/a")

    # --- Temporary names ------------------------------------------------------------------------

    def test_a_finished_file_does_not_look_temporary(
        self, storage: base.Storage, root: str
    ) -> None:
        storage.write(f"{root}/a", b"x", durable=False)
        assert not any(temporary.is_temporary(name) for name in storage.list(root))


def _winners(storage: base.Storage, path: str) -> list[int]:
    """Returns which of eight threads succeed when all create `path` at once."""
    start = threading.Barrier(8)
    winners: list[int] = []

    def run(who: int) -> None:
        start.wait(timeout=30)
        try:
            storage.create(path, b"%d" % who, durable=False)
        except FileExistsError:
            return
        winners.append(who)

    run_in_threads(run, range(8))
    return winners
