"""A process's slot: a few words of memory shared by supervisor, agent and children.

The child writes what it runs, the others read it after (or before) its death: that is how a crash gets its culprit and
how hard limits work without a message. Written by the task's thread on every task, so it costs no system call. What the
supervisor wants of a child (``order``), and what concerns the node (``Words``), are words of the same memory.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from msgspec import Struct

__all__ = [
    "CONNECTING",
    "EXPECTING",
    "FREE",
    "GO",
    "LEAVING",
    "LEFT",
    "NO_ORDER",
    "READY",
    "RETIRE",
    "SLOT_SIZE",
    "STANDBY",
    "STARTING",
    "TERMINATED",
    "Running",
    "Slot",
    "Slots",
    "Words",
]

SLOT_SIZE = 512
#: started, deadline (CLOCK_MONOTONIC, the same in all processes; 0: none), limit, whether it was acknowledged early,
#: length of the first two texts, in characters, and of all three in bytes, texts.
_RUN = struct.Struct("<dddHHHH")
_RUN_AT = 64
_TEXT_AT = _RUN_AT + _RUN.size
_TEXT_MAX = SLOT_SIZE - _TEXT_AT
#: Who: pid, state. Pulse: beat of the I/O loop, tasks run, deliveries held, whether its broker answers. Apart, as two
#: threads write them.
_WHO = struct.Struct("<II")
_PULSE = struct.Struct("<dQII")
_PULSE_AT = 8
#: Written by others: the order.
_ORDER = struct.Struct("<I")
_ORDER_AT = 40
_EMPTY = _RUN.pack(0.0, 0.0, 0.0, 0, 0, 0, 0)

#: States of a child, in order: it waits for its predecessor (STANDBY); it runs tasks (READY); so it does, and it will
#: leave soon (EXPECTING), or as soon as a successor stands by (LEAVING); it claims no more and runs none (LEFT).
FREE, STARTING, CONNECTING, STANDBY, READY, EXPECTING, LEAVING, LEFT = range(8)

#: Orders to a child: claim; end what runs and leave; and, for the record, that the agent ended it on request.
NO_ORDER, GO, RETIRE, TERMINATED = range(4)


class Running(Struct, frozen=True):
    """What a child runs, by its own word: ``token`` of the delivery and task ``id``. Times of CLOCK_MONOTONIC."""

    token: str
    id: str
    started: float
    deadline: float | None
    limit: float
    #: It was acknowledged before it ran, and its result is to be stored.
    early: bool = False
    #: Of such a task: the queue that its sender has named for results.
    reply_to: str = ""


class Words:
    """What concerns the whole node, in the head of the mapping."""

    _FORM = struct.Struct("<II")

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @property
    def wanted(self) -> int:
        """How many children there should be; the agent writes it."""
        wanted: int = self._FORM.unpack_from(self._memory, 0)[0]
        return wanted

    @wanted.setter
    def wanted(self, value: int) -> None:
        struct.pack_into("<I", self._memory, 0, value)

    @property
    def failing(self) -> int:
        """Starts of children that failed in a row; the supervisor writes it."""
        failing: int = self._FORM.unpack_from(self._memory, 0)[1]
        return failing

    @failing.setter
    def failing(self, value: int) -> None:
        struct.pack_into("<I", self._memory, 4, value)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Most and fewest children as remote control has set them, or None; kept for the agent that comes after."""
        most, fewest = self._FORM.unpack_from(self._memory, self._FORM.size)
        return (most, fewest) if most else None

    @bounds.setter
    def bounds(self, value: tuple[int, int]) -> None:
        self._FORM.pack_into(self._memory, self._FORM.size, *value)


class Slots:
    """The slots of a node: one anonymous shared mapping, made before the forks. The first one is the agent's."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, (count + 1) * SLOT_SIZE)
        self.words = Words(self._memory)

    def __getitem__(self, index: int) -> Slot:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return Slot(self._memory, (index + 1) * SLOT_SIZE)

    def taken(self) -> list[Slot]:
        """The slots of the children that live."""
        return [slot for index in range(1, self.count) if (slot := self[index]).pid]

    def close(self) -> None:
        """Unmap, in this process only."""
        self._memory.close()


class Slot:
    """One process's slot. It writes; supervisor and agent read, and write its ``order``."""

    __slots__ = ("_at", "_memory", "begin", "end")

    #: ``begin(token, id, started, deadline, limit, early, reply_to)`` and ``end()`` are closures: they run once a task.
    begin: Callable[..., None]
    end: Callable[[], None]

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory = memory
        self._at = at
        run, text = at + _RUN_AT, at + _TEXT_AT
        pack = _RUN.pack_into

        def begin(
            token: str, task_id: str, started: float, deadline: float, limit: float, early: bool = False,
            reply_to: str = "",
        ) -> None:  # fmt: skip
            texts, length = (token + task_id + reply_to).encode("utf-8", "replace"), len(task_id)
            if len(texts) > _TEXT_MAX:  # no queue rather than a part of its name, which is that of another
                texts, length = (token + task_id).encode("utf-8", "replace")[:_TEXT_MAX], _TEXT_MAX
            memory[text : text + len(texts)] = texts
            # The lengths make the text valid, so they are written last.
            pack(memory, run, started, deadline, limit, early, len(token), length, len(texts))

        def end() -> None:
            memory[run : run + len(_EMPTY)] = _EMPTY

        self.begin = begin
        self.end = end

    def reset(self) -> None:
        """Blank the slot for the next child."""
        self._memory[self._at : self._at + SLOT_SIZE] = bytes(SLOT_SIZE)

    def running(self) -> Running | None:
        """What the child runs now, or ran when it died; None between tasks."""
        started, deadline, limit, early, token, task_id, texts = _RUN.unpack_from(self._memory, self._at + _RUN_AT)
        if not texts:
            return None
        at = self._at + _TEXT_AT
        text = bytes(self._memory[at : at + texts]).decode("utf-8", "replace")
        end = token + task_id
        return Running(text[:token], text[token:end], started, deadline or None, limit, bool(early), text[end:])

    def live(self, pid: int, state: int) -> None:
        """Write the child's pid and state."""
        _WHO.pack_into(self._memory, self._at, pid, state)

    def pulse(self, beat: float, tasks: int, held: int = 0, connected: bool = False) -> None:
        """Write the I/O loop's beat (CLOCK_MONOTONIC), the number of tasks run, that of deliveries held, and whether
        the broker answers."""
        _PULSE.pack_into(self._memory, self._at + _PULSE_AT, beat, tasks, held, connected)

    @property
    def pid(self) -> int:
        """The child's pid, 0 when free."""
        pid: int = _WHO.unpack_from(self._memory, self._at)[0]
        return pid

    @property
    def state(self) -> int:
        """FREE, STARTING, CONNECTING, STANDBY, READY, EXPECTING, LEAVING or LEFT."""
        state: int = _WHO.unpack_from(self._memory, self._at)[1]
        return state

    @property
    def beat(self) -> float:
        """Last sign of life of the I/O loop, CLOCK_MONOTONIC."""
        beat: float = self._pulse()[0]
        return beat

    @property
    def tasks(self) -> int:
        """Tasks run by this child."""
        tasks: int = self._pulse()[1]
        return tasks

    @property
    def held(self) -> int:
        """Deliveries that it holds, by its last beat."""
        held: int = self._pulse()[2]
        return held

    @property
    def connected(self) -> bool:
        """Its broker answered at the last beat."""
        return bool(self._pulse()[3])

    def _pulse(self) -> tuple[float, int, int, int]:
        pulse: tuple[float, int, int, int] = _PULSE.unpack_from(self._memory, self._at + _PULSE_AT)
        return pulse

    @property
    def order(self) -> int:
        """What is asked of this child: NO_ORDER, GO, RETIRE or TERMINATED."""
        order: int = _ORDER.unpack_from(self._memory, self._at + _ORDER_AT)[0]
        return order

    @order.setter
    def order(self, value: int) -> None:
        _ORDER.pack_into(self._memory, self._at + _ORDER_AT, value)
