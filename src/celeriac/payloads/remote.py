"""Payloads wherever fsspec reaches: S3, Google Cloud Storage, Azure, SFTP, WebDAV …

Objects of such stores appear whole. One file system object per process: those with an event loop of their own do not
survive a fork.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured, OperationalError, PayloadLost
from celeriac.payloads.directory import MARKER

__all__ = ["Remote"]


class Remote:
    """See ``celeriac.ports.PayloadStore``. ``url`` is fsspec's; its options come from fsspec's own configuration."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImproperlyConfigured(
                f"payload_store = {mask_url(url)!r} needs the package fsspec: pip install 'celeriac[payloads]'"
            ) from error
        self._fsspec: Any = fsspec
        self._url = url
        self._shown = mask_url(url)
        self._pid = 0
        self._files: Any = None
        self._root = ""
        self._marked = False
        scheme = url.partition("://")[0]
        try:
            fsspec.get_filesystem_class(scheme)
        except (ImportError, ValueError) as error:
            raise ImproperlyConfigured(f"payload_store = {self._shown!r}: {error}") from error

    def _open(self) -> Any:
        if self._pid != os.getpid():
            if self._pid:
                # fsspec's own event loop thread stayed with the parent.
                self._fsspec.asyn.reset_lock()
            found, root = self._fsspec.core.url_to_fs(self._url)
            self._files, self._root, self._pid = found, str(root).rstrip("/"), os.getpid()
        return self._files

    def write(self, name: str, data: bytes) -> None:
        """See ``PayloadStore.write``."""
        with self._errors("write"):
            files = self._open()
            if not self._marked:
                files.makedirs(self._root, exist_ok=True)
                files.pipe_file(f"{self._root}/{MARKER}", b"")
                self._marked = True
            files.makedirs(f"{self._root}/{name.partition('/')[0]}", exist_ok=True)
            files.pipe_file(f"{self._root}/{name}", data)

    def read(self, name: str, size: int) -> bytes:
        """See ``PayloadStore.read``."""
        with self._errors("read"):
            files = self._open()
            try:
                data: bytes = files.cat_file(f"{self._root}/{name}", 0, size + 1)
            except FileNotFoundError:
                files.invalidate_cache()
                if not files.exists(f"{self._root}/{MARKER}"):
                    raise
                raise PayloadLost(f"the payload {name} is not in {self._shown}") from None
            return data

    def drop(self, name: str) -> None:
        """See ``PayloadStore.drop``."""
        with self._errors("drop"):
            try:
                self._open().rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                pass

    def sweep(self, before: str) -> int:
        """See ``PayloadStore.sweep``."""
        dropped = 0
        with self._errors("sweep"):
            files = self._open()
            files.invalidate_cache()
            try:
                places = files.ls(self._root, detail=False)
            except FileNotFoundError:
                return 0
            for place in sorted(str(each).rstrip("/") for each in places):
                day = place.rpartition("/")[2]
                if len(day) == len(before) and day < before and day[0].isdigit():
                    dropped += len(files.find(place))
                    files.rm(place, recursive=True)
        return dropped

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except PayloadLost:
            raise
        except Exception as error:  # each file system has errors of its own
            raise OperationalError(
                f"cannot {verb} in the payload store {self._shown}: {type(error).__name__}: {error}"
            ) from error
