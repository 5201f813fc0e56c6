"""A child's slot: a few words of memory shared with its supervisor and agent.

The child writes what it runs, the others read it after (or before) its death: that is how a crash gets its culprit and
how hard limits work without a message. Written by the task's thread on every task, so it costs no system call.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from msgspec import Struct

__all__ = ["CONNECTING", "DRAINING", "FREE", "READY", "SLOT_SIZE", "STARTING", "Running", "Slot", "Slots"]

SLOT_SIZE = 512
#: started, deadline (CLOCK_MONOTONIC, the same in all processes; 0: none), limit, length of the two texts, texts.
_RUN = struct.Struct("<dddHH")
_RUN_AT = 64
_TEXT_AT = _RUN_AT + _RUN.size
_TEXT_MAX = SLOT_SIZE - _TEXT_AT
#: Life: pid, state, beat of the I/O loop, tasks run.
_LIFE = struct.Struct("<IIdQ")
_EMPTY = _RUN.pack(0.0, 0.0, 0.0, 0, 0)

#: States of a child, in order.
FREE, STARTING, CONNECTING, READY, DRAINING = range(5)


class Running(Struct, frozen=True):
    """What a child runs, by its own word: ``token`` of the delivery and task ``id``. Times of CLOCK_MONOTONIC."""

    token: str
    id: str
    started: float
    deadline: float | None
    limit: float


class Slots:
    """The slots of a node: one anonymous shared mapping, made before the forks."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, count * SLOT_SIZE)

    def __getitem__(self, index: int) -> Slot:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return Slot(self._memory, index * SLOT_SIZE)

    def close(self) -> None:
        """Unmap, in this process only."""
        self._memory.close()


class Slot:
    """One child's slot. The child writes; supervisor and agent read."""

    __slots__ = ("_at", "_memory", "begin", "end")

    #: ``begin(token, id, started, deadline, limit)`` and ``end()`` are closures: they run once per task.
    begin: Callable[[str, str, float, float, float], None]
    end: Callable[[], None]

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory = memory
        self._at = at
        run, text = at + _RUN_AT, at + _TEXT_AT
        pack = _RUN.pack_into

        def begin(token: str, task_id: str, started: float, deadline: float, limit: float) -> None:
            texts = (token + task_id).encode("utf-8", "replace")[:_TEXT_MAX]
            memory[text : text + len(texts)] = texts
            # The lengths make the text valid, so they are written last.
            pack(memory, run, started, deadline, limit, len(token), len(texts))

        def end() -> None:
            memory[run : run + len(_EMPTY)] = _EMPTY

        self.begin = begin
        self.end = end

    def reset(self) -> None:
        """Blank the slot for the next child."""
        self._memory[self._at : self._at + SLOT_SIZE] = bytes(SLOT_SIZE)

    def running(self) -> Running | None:
        """What the child runs now, or ran when it died; None between tasks."""
        started, deadline, limit, token, texts = _RUN.unpack_from(self._memory, self._at + _RUN_AT)
        if not texts:
            return None
        at = self._at + _TEXT_AT
        text = bytes(self._memory[at : at + texts]).decode("utf-8", "replace")
        return Running(text[:token], text[token:], started, deadline or None, limit)

    def live(self, pid: int, state: int) -> None:
        """Write the child's pid and state."""
        beat, tasks = self.beat, self.tasks
        _LIFE.pack_into(self._memory, self._at, pid, state, beat, tasks)

    def pulse(self, beat: float, tasks: int) -> None:
        """Write the I/O loop's beat (CLOCK_MONOTONIC) and the number of tasks run."""
        pid, state, _, _ = _LIFE.unpack_from(self._memory, self._at)
        _LIFE.pack_into(self._memory, self._at, pid, state, beat, tasks)

    @property
    def pid(self) -> int:
        """The child's pid, 0 when free."""
        pid: int = _LIFE.unpack_from(self._memory, self._at)[0]
        return pid

    @property
    def state(self) -> int:
        """FREE, STARTING, CONNECTING, READY or DRAINING."""
        state: int = _LIFE.unpack_from(self._memory, self._at)[1]
        return state

    @property
    def beat(self) -> float:
        """Last sign of life of the I/O loop, CLOCK_MONOTONIC."""
        beat: float = _LIFE.unpack_from(self._memory, self._at)[2]
        return beat

    @property
    def tasks(self) -> int:
        """Tasks run by this child."""
        tasks: int = _LIFE.unpack_from(self._memory, self._at)[3]
        return tasks
