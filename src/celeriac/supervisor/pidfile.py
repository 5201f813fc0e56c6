"""The pid file of a node: a second start with the same file is refused while the first lives."""

from __future__ import annotations

import os
from types import TracebackType

from celeriac.exceptions import CeleryCommandException

__all__ = ["EX_CANTCREAT", "PidFile"]

EX_CANTCREAT = 73


class PidFile:
    """``with PidFile(path):`` the file holds this process's id. A file whose process is gone is replaced.

    Raises ``CeleryCommandException`` with exit code 73 when its process lives, or the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._owner = 0

    def __enter__(self) -> None:
        for _ in range(2):
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                self._remove_stale()
                continue
            except OSError as error:
                raise CeleryCommandException(
                    f"cannot write pid file {self._path}: {error.strerror}", EX_CANTCREAT
                ) from error
            self._owner = os.getpid()
            os.write(descriptor, f"{self._owner}\n".encode())
            os.close(descriptor)
            return
        raise CeleryCommandException(f"pid file {self._path} was just written by another start", EX_CANTCREAT)

    def _remove_stale(self) -> None:
        pid = self._read()
        # In a container both have pid 1: a file left behind by a node that was killed names us.
        if pid and pid != os.getpid() and _lives(pid):
            raise CeleryCommandException(
                f"pid file {self._path} belongs to process {pid}, which runs: stop it, or use another --pidfile",
                EX_CANTCREAT,
            )
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # its owner left meanwhile

    def _read(self) -> int:
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                return int(file.read(32).strip())
        except (OSError, ValueError):
            return 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner == os.getpid() and self._read() == self._owner:
            os.unlink(self._path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return pid < 2**31
    return True
