"""Forks, watches, replaces, and ends the processes of a node.

One loop, woken by signals and a few times a second: reap the dead and tell the agent what their slots named, enforce
hard limits, replace, shut down. Warm shutdown: SIGTERM or SIGINT once; cold: a second one, or SIGQUIT.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from celeriac.app.log import enter_process
from celeriac.codec.escape import one_line
from celeriac.supervisor.process import END_OF_AGENT, fork, run_agent, run_child
from celeriac.supervisor.stop import means_cold, say
from celeriac.worker.agent import NO_MORE, Died, notice
from celeriac.worker.options import NodeOptions
from celeriac.worker.slot import READY, STARTING, Running, Slot, Slots

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Supervisor"]

logger = logging.getLogger("celery.worker")

#: Seconds between two looks at the slots.
_LOOK = 0.2
#: A child that lived shorter than this counts as a failed start; replacements then slow down, up to _SLOWEST.
_SHORT_LIFE = 1.0
_SLOWEST = 30.0
#: Seconds beyond the grace until what still lives is killed.
_MARGIN = 8.0
#: A child that has not come up after so many seconds is replaced.
_START_LIMIT = 60.0


class _Process:
    """One place for a process: who is there, and when the next may start."""

    def __init__(self, index: int, slot: Slot | None) -> None:
        #: 0 for the agent, children count from 1.
        self.index = index
        self.name = f"child-{index}" if index else "agent"
        self.slot = slot
        self.pid = 0
        self.owner = ""
        self.began = 0.0
        self.failures = 0
        self.not_before = 0.0
        #: Set when it was killed for its hard limit, in seconds.
        self.over_limit = 0.0
        #: What ran when it was killed for that.
        self.over_token = ""
        #: Set when the shutdown killed it: what it ran is no culprit.
        self.ended = False
        #: Set when the shutdown has asked it to stop.
        self.told = False


class Supervisor:
    """The main process of one node."""

    def __init__(self, app: Celery, options: NodeOptions, *, ready: Callable[[], None] | None = None) -> None:
        self.app = app
        self.options = options
        count = 1 if options.pool == "threads" else options.concurrency
        self._slots = Slots(count)
        self._children = [_Process(index, self._slots[index - 1]) for index in range(1, count + 1)]
        self._agent = _Process(0, None)
        self._link = f"celeriac-{os.getpid()}-{secrets.token_hex(8)}"
        self._notices_read, self._notices_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._ready = ready
        self._stopping = 0.0
        self._cold = False
        self._interrupts = 0

    def run(self) -> int:
        """Supervise until told to stop; returns the exit code: 0 after a warm shutdown, 1 after a cold one."""
        self._warn_about_threads()
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        self._replace()
        while not self._finished():
            self._wait()
            self._reap()
            self._enforce()
            self._announce()
            if self._stopping:
                self._press()
            else:
                self._replace()
        return 1 if self._cold else 0

    # -- starting ----------------------------------------------------------------------------------------------

    def _warn_about_threads(self) -> None:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if names:
            logger.warning(
                "Importing the app started threads (%s): they do not exist in the children, and locks they hold stay "
                "locked there; start them in worker_process_init instead",
                ", ".join(names),
            )

    def _start_agent(self) -> None:
        agent, app, options, link, notices = self._agent, self.app, self.options, self._link, self._notices_read
        agent.owner = secrets.token_hex(6)
        agent.began = time.monotonic()
        owner = agent.owner
        slots = [child.slot for child in self._children if child.slot is not None]

        def main() -> int:
            enter_process(agent.name)
            return run_agent(app, options, owner, link, notices, slots)

        agent.pid = fork(main)

    def _start_child(self, child: _Process) -> None:
        app, options, link, slot = self.app, self.options, self._link, child.slot
        assert slot is not None
        slot.reset()
        child.owner = secrets.token_hex(6)
        child.began = time.monotonic()
        child.over_limit, child.over_token = 0.0, ""
        child.ended = False
        owner = child.owner

        def main() -> int:
            enter_process(child.name, child.index, tasks=True)
            return run_child(app, options, slot, owner, link)

        child.pid = fork(main)

    def _replace(self) -> None:
        now = time.monotonic()
        for place in (self._agent, *self._children):
            if not place.pid and now >= place.not_before and not self._stopping:
                try:
                    if place is self._agent:
                        self._start_agent()
                    else:
                        self._start_child(place)
                except OSError as error:  # no more processes, or no memory: both may come back
                    place.not_before = now + _SHORT_LIFE
                    logger.error("Cannot start process %s: %s; next try in %.1f s", place.name, error, _SHORT_LIFE)

    # -- watching ----------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        readable, _, _ = select.select([self._wake_read], [], [], _LOOK)
        if readable:
            os.read(self._wake_read, 4096)

    def _reap(self) -> None:
        for place in (self._agent, *self._children):
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._bury(place, status)

    def _bury(self, place: _Process, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"
        now = time.monotonic()
        running = place.slot.running() if place.slot is not None else None
        # One that died of a task had started well: that task is counted, and must not keep the others waiting.
        worked = place.slot.tasks > 0 if place.slot is not None else code == 0
        short = now - place.began < _SHORT_LIFE and running is None and not worked
        place.failures = place.failures + 1 if short else 0
        delay = min(_SLOWEST, 0.1 * 2**place.failures) if short else 0.0
        place.not_before = now + delay
        if (code or short) and not self._stopping:
            again = f", next start in {delay:.1f} s" if delay else ""
            logger.error("Process %s (pid %d) died by %s%s%s", place.name, place.pid, how, _with(running), again)
        place.pid = 0
        if place.slot is not None:
            self._tell(place, how, running)
            # Nobody runs there: the agent must not keep the lease of its task alive.
            place.slot.reset()

    def _tell(self, child: _Process, how: str, running: Running | None) -> None:
        """The agent settles what the dead child held."""
        many = self.options.pool == "threads" and not child.ended
        culprit = running if not many and not child.ended else None
        if culprit is not None and child.over_limit and culprit.token != child.over_token:
            culprit = None  # it had just begun when the kill came that was meant for the one before
        died = Died(
            owner=child.owner,
            how=how,
            token=culprit.token if culprit else "",
            id=culprit.id if culprit else "",
            limit=child.over_limit,
            many=many,
            tasks=child.slot.tasks if child.slot is not None else 0,
        )
        os.write(self._notices_write, notice(died))

    def _enforce(self) -> None:
        """Hard limits, and children that never came up."""
        now = time.monotonic()
        for child in self._children:
            if not child.pid or child.slot is None:
                continue
            running = child.slot.running()
            if running is not None and running.deadline is not None and now > running.deadline:
                child.over_limit, child.over_token = running.limit, running.token
                logger.error("Task %s ran longer than %ss: its process ends", one_line(running.id), running.limit)
                self._kill(child, signal.SIGKILL)
            elif child.slot.state == STARTING and now - child.began > _START_LIMIT:
                logger.error("Process %s did not come up within %.0f s: it is replaced", child.name, _START_LIMIT)
                self._kill(child, signal.SIGKILL)

    def _announce(self) -> None:
        if self._ready is not None and all(
            child.slot is not None and child.slot.state >= READY for child in self._children
        ):
            ready, self._ready = self._ready, None
            ready()

    # -- stopping ----------------------------------------------------------------------------------------------

    def _on_stop(self, signum: int, frame: object) -> None:
        self._interrupts += 1
        if means_cold(signum) or self._interrupts > 1:
            self._cold = True
        if not self.options.quiet:
            say(cold=self._cold, signum=signum)
        if not self._stopping:
            self._stopping = time.monotonic()

    def _press(self) -> None:
        """Cold or overdue: kill the children; the agent goes last, when it has settled what they held."""
        overdue = time.monotonic() - self._stopping > self.options.grace + _MARGIN
        living = [child for child in self._children if child.pid]
        for place in (self._agent, *living):
            # Here and not in the signal handler: a child that is being forked in that moment would never be told.
            if not place.told:
                place.told = True
                self._kill(place, signal.SIGTERM)
        if self._cold or overdue:
            for child in living:
                child.ended = True
                self._kill(child, signal.SIGKILL)
        if not living and self._agent.pid and not self._agent.over_limit:
            self._agent.over_limit = time.monotonic()
            os.write(self._notices_write, NO_MORE)
            self._kill(self._agent, END_OF_AGENT)
        elif self._agent.over_limit and time.monotonic() - self._agent.over_limit > _MARGIN:
            self._kill(self._agent, signal.SIGKILL)

    def _finished(self) -> bool:
        return bool(self._stopping) and not any(place.pid for place in (self._agent, *self._children))

    @staticmethod
    def _kill(place: _Process, signum: int) -> None:
        if place.pid:
            try:
                os.kill(place.pid, signum)
            except ProcessLookupError:
                pass  # it died meanwhile and is reaped next


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"  # these have numbers only


def _with(running: Running | None) -> str:
    return f" while it ran task {one_line(running.id)}" if running is not None else ""
