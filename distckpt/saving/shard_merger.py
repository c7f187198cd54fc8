"""Merges the shards of all workers into one bundle, within the pending folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distckpt.core import layout
from distckpt.core.protocol.messages import Report
from distckpt.core.tensorflow_format.index_merge import merge_indexes
from distckpt.core.tensorflow_format.index_reader import header_only_index
from distckpt.runtime.gc_pause import paused
from distckpt.state.base import Merger
from distckpt.storage.base import Storage


class ShardMerger:
    """Merges shards. Chief only.

    Args:
      storage: Where the directory is.
      merger: Merges bundles as TensorFlow does.
      durable: Whether files are forced to stable storage.
    """

    def __init__(self, storage: Storage, merger: Merger, *, durable: bool) -> None:
        self._storage = storage
        self._merger = merger
        self._durable = durable

    def put_together(self, name: str, folder: str, reports: Sequence[Report]) -> None:
        """Makes one bundle of the parts, with the data files in the order of the reports.

        TensorFlow's op keeps that order only if each part has one data file: it numbers the files
        of one part in the order of their tensors. With `durable`, the index is on stable storage
        when this returns; the workers have already flushed the parts.
        """
        prefixes = [prefix for report in reports for prefix in report.prefixes]
        files = [file.name for report in reports for file in report.files]
        if len(prefixes) == len(files) > 1:
            self._merger.merge(folder, prefixes, name)
            if self._durable:  # TensorFlow does not flush
                self._storage.flush(layout.join(folder, layout.index_name(name)))
            return
        for number, file in enumerate(files):
            target = layout.data_name(name, number, len(files))
            self._storage.rename(layout.join(folder, file), layout.join(folder, target))
        indexes = [layout.join(folder, layout.index_name(prefix)) for prefix in prefixes]
        merged = layout.join(folder, layout.index_name(name))
        if len(indexes) == 1:
            self._storage.rename(indexes[0], merged)
            return
        parts = [self._storage.read(index) for index in indexes]
        self._storage.write(merged, _merged(parts), durable=self._durable)
        for index in indexes:
            self._storage.remove(index)

    def renumber(self, name: str, folder: str, files: int, existing: Iterable[str]) -> None:
        """Gives the merged data files names that no file in the directory has.

        The number of data files is part of their names, so empty files are added until the number
        is new.

        Args:
          name: The checkpoint's name.
          folder: The folder of the merged bundle.
          files: The number of its data files.
          existing: The names of that checkpoint's data files in the directory.
        """
        taken = {parsed.shards for parsed in map(layout.parse_data_name, existing) if parsed}
        total = files
        while total in taken:
            total += 1
        if total == files:
            return
        index = layout.join(folder, layout.index_name(name))
        parts = [self._storage.read(index), *[header_only_index()] * (total - files)]
        for shard in range(total):
            target = layout.join(folder, layout.data_name(name, shard, total))
            if shard < files:
                source = layout.join(folder, layout.data_name(name, shard, files))
                self._storage.rename(source, target)
            else:
                self._storage.write(target, b"", durable=self._durable)
        self._storage.write(index, _merged(parts), durable=self._durable)


@paused()
def _merged(indexes: Sequence[bytes]) -> bytes:
    return merge_indexes(indexes)
