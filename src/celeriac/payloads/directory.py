"""Payloads in a directory that producers and workers share: one file each, below the day on which it may be dropped.

Files appear whole (written beside, then renamed) and are on the disk before ``write`` returns. Only the owner may read
them. A marker file tells an empty store from a mount that is away.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from celeriac.exceptions import OperationalError, PayloadLost

__all__ = ["MARKER", "Directory"]

#: Made with the store: where it is missing, the store is away, and nothing in it is lost.
MARKER = ".celeriac-payloads"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """See ``celeriac.ports.PayloadStore``. Thread-safe, survives forks: it keeps nothing open."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._made = False

    def write(self, name: str, data: bytes) -> None:
        """See ``PayloadStore.write``."""
        day, _, file = name.partition("/")
        with self._errors("write"):
            self._make()
            place = os.path.join(self._path, day)
            os.makedirs(place, 0o700, exist_ok=True)
            at = os.open(place, _DIRECTORY)
            try:
                self._write_in(at, file, data)
            finally:
                os.close(at)

    def _make(self) -> None:
        if not self._made:
            os.makedirs(self._path, 0o700, exist_ok=True)
            os.close(os.open(os.path.join(self._path, MARKER), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._made = True

    @staticmethod
    def _write_in(at: int, file: str, data: bytes) -> None:
        beside = f".{file}.{secrets.token_hex(4)}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(beside, file, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            os.unlink(beside, dir_fd=at)
            raise
        os.fsync(at)

    def read(self, name: str, size: int) -> bytes:
        """See ``PayloadStore.read``."""
        day, _, file = name.partition("/")
        with self._errors("read"):
            try:
                at = os.open(os.path.join(self._path, day), _DIRECTORY)
                try:
                    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                finally:
                    os.close(at)
            except FileNotFoundError:
                if not os.path.exists(os.path.join(self._path, MARKER)):
                    raise
                raise PayloadLost(f"the payload {name} is not in {self._path}") from None
            with os.fdopen(descriptor, "rb") as stream:
                return stream.read(size + 1)

    def drop(self, name: str) -> None:
        """See ``PayloadStore.drop``."""
        with self._errors("drop"):
            try:
                os.unlink(os.path.join(self._path, name))
            except FileNotFoundError:
                pass

    def sweep(self, before: str) -> int:
        """See ``PayloadStore.sweep``."""
        dropped = 0
        with self._errors("sweep"):
            days = sorted(os.listdir(self._path)) if os.path.isdir(self._path) else []
            for day in days:
                if len(day) != len(before) or not day < before or not day[0].isdigit():
                    continue
                place = os.path.join(self._path, day)
                for file in os.listdir(place):
                    os.unlink(os.path.join(place, file))
                    dropped += 1
                os.rmdir(place)
        return dropped

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OperationalError(f"cannot {verb} in the payload store {self._path}: {error.strerror}") from error
