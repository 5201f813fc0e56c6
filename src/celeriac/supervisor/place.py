"""One place for a process of a node: who is there, what it was told, and how it is woken."""

from __future__ import annotations

import os
import signal

from celeriac.supervisor.stacks import Stacks
from celeriac.worker.slot import EXPECTING, GO, LEAVING, LEFT, NO_ORDER, READY, RETIRE, STARTING, Slot

__all__ = ["Place"]


class Place:
    """Place ``index``: 0 is the agent's, children count from 1. Kept when its process is replaced."""

    def __init__(self, index: int, slot: Slot) -> None:
        self.index = index
        self.name = f"child-{index}" if index else "agent"
        self.slot = slot
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.stacks = Stacks()
        self.pid = 0
        self.take(0.0, "")

    def take(self, now: float, owner: str, *, standby: bool = False) -> None:
        """A new process comes here; one that stands by waits until it may begin."""
        self.owner = owner
        self.began = now
        #: Set when it was killed for its hard limit, in seconds, and what ran then.
        self.over_limit, self.over_token = 0.0, ""
        #: Set when the shutdown killed it: what it ran is no culprit.
        self.ended = False
        #: Set when the shutdown has asked it to stop.
        self.told = False
        #: The supervisor killed it.
        self.killed = False
        #: Asked to leave for good: nobody takes over.
        self.retiring = False
        self.standby = standby
        #: Who takes over from here.
        self.heir: Place | None = None
        #: Seconds for which its loop has not beaten, as seen by a supervisor that was awake, and that beat.
        self.silent, self.beat = 0.0, 0.0
        #: When it was asked for its stacks, before it is killed.
        self.asked = 0.0
        self.stacks.clear()
        self.slot.reset()
        self._hush()
        self.slot.order = NO_ORDER if standby else GO

    @property
    def serves(self) -> bool:
        """It runs tasks, or is about to: it counts towards the number of children."""
        return bool(self.pid) and not self.standby and not self.retiring and self.slot.state != LEFT

    @property
    def wants_heir(self) -> bool:
        """It will leave, and nobody is there to take over."""
        heired = self.heir is not None and self.heir.pid != 0
        return self.serves and not heired and self.slot.state in (EXPECTING, LEAVING)

    @property
    def idle(self) -> bool:
        """It neither runs nor holds a task, by its last beat."""
        return self.slot.state >= READY and not self.slot.held and self.slot.running() is None

    def order(self, order: int) -> None:
        """Tell the process to go, or to retire."""
        if order == RETIRE:
            self.retiring = True
        elif order == GO:
            self.standby = False
        self.slot.order = order
        os.eventfd_write(self.bell, 1)

    def kill(self, signum: int) -> None:
        """Send a signal, if somebody is there."""
        if self.pid:
            self.killed = self.killed or signum == signal.SIGKILL
            try:
                os.kill(self.pid, signum)
            except ProcessLookupError:
                pass  # it died meanwhile and is reaped next

    def hangs(self, now: float, passed: float, *, start: float, silence: float) -> str:
        """Why this process is taken for hung, or nothing; ``passed`` seconds since the last look.

        ``start``: seconds to come up; ``silence``: seconds without a beat while no task is known to run, for a task in
        C code may keep the loop from beating.
        """
        if self.slot.state <= STARTING:
            return f"did not come up within {start:g} s" if start and now - self.began > start else ""
        beat = self.slot.beat
        self.silent = 0.0 if beat != self.beat or self.slot.running() is not None else self.silent + passed
        self.beat = beat
        return f"hangs: its event loop has not moved for {silence:g} s" if self.silent > silence else ""

    def _hush(self) -> None:
        """What was rung for the one before."""
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close its descriptors, in this process only."""
        os.close(self.bell)
        self.stacks.close()
