"""Storages that each break one promise."""

from __future__ import annotations

from distckpt.storage.local import LocalStorage


class ReadOnly(LocalStorage):
    """Refuses all writes."""

    def write(self, path, data, *, durable):
        raise OSError(30, "Read-only file system", path)


class Careless(LocalStorage):
    """Replaces a file that it should create only if there is none."""

    def create(self, path, data, *, durable):
        self.write(path, data, durable=durable)


class Unflushable(LocalStorage):
    """Cannot flush directories."""

    def flush_directory(self, path):
        raise OSError(22, "Invalid argument", path)


class Forgetful(LocalStorage):
    """Loses the last byte of what it reads."""

    def read(self, path, *args):
        return super().read(path, *args)[:-1]


class KeepsTheOld(LocalStorage):
    """Deletes what it should rename."""

    def rename(self, source, target):
        self.remove(source)
