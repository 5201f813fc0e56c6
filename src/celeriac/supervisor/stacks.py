"""What a process was doing when it hung or crashed: the stacks of its threads, written by ``faulthandler``.

They go to a file in memory, not to stderr: so they reach the log as one record, under the name of the process.
"""

from __future__ import annotations

import faulthandler
import os
import signal

__all__ = ["Stacks"]

#: Asks a process for its stacks; a real-time signal, which applications do not use by chance.
_ASK = signal.SIGRTMIN + 7
_LIMIT = 16_384


class Stacks:
    """The file of one place; made before the fork, written by the process, read by the supervisor."""

    def __init__(self) -> None:
        self._file = os.memfd_create("celeriac-stacks")

    def enter(self) -> None:
        """In the new process: write them on request, and on a fatal error unless the app has its own way."""
        faulthandler.register(_ASK, file=self._file, all_threads=True)
        if not faulthandler.is_enabled():
            faulthandler.enable(self._file)

    def clear(self) -> None:
        """For the next process."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    def ask(self, pid: int) -> None:
        """Have them written; works also while a thread holds the interpreter's lock."""
        try:
            os.kill(pid, _ASK)
        except ProcessLookupError:
            pass  # it has ended meanwhile

    def read(self) -> str:
        """What was written, or nothing."""
        return os.pread(self._file, _LIMIT, 0).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close it, in this process only."""
        os.close(self._file)
