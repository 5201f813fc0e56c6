"""Orders that a node was given by remote control, kept for as long as it lives: also for an agent that comes after.

They lie in memory that is a file without a name, made by the supervisor before it forks: an agent that was killed takes
nothing with it. One writer, the agent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["KeptOrders"]

#: Beyond so many bytes the file is begun anew.
_MOST = 1024 * 1024
_decode = msgspec.json.Decoder(dict[str, dict[str, Any]]).decode


class KeptOrders:
    """The newest arguments by method, as a child is told them.

    Each change appends a line with all orders; the last whole line counts. Whoever dies while writing has changed
    nothing.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("celeriac-orders")

    def read(self) -> dict[str, Mapping[str, Any]]:
        """All orders; none where there is nothing to be read."""
        whole = os.pread(self._file, os.fstat(self._file).st_size, 0).rpartition(b"\n")[0]
        try:
            return dict(_decode(whole.rpartition(b"\n")[2])) if whole else {}
        except msgspec.MsgspecError:  # a task has written there
            return {}

    def write(self, orders: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace them."""
        line = json.dumps(orders, default=repr).encode() + b"\n"
        size = os.fstat(self._file).st_size
        if size + len(line) > _MOST:
            os.ftruncate(self._file, 0)
            size = 0
        # Behind a line that was not finished: this one must not become its end.
        ends = size == 0 or os.pread(self._file, 1, size - 1) == b"\n"
        os.pwrite(self._file, line if ends else b"\n" + line, size)

    def close(self) -> None:
        """Close it, in this process only."""
        os.close(self._file)
