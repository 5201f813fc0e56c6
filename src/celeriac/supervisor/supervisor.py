"""Forks, watches, replaces, and ends the processes of a node.

One loop, woken by signals and a few times a second: reap the dead and tell the agent what their slots named, enforce
hard limits, replace, shut down. Warm shutdown: SIGTERM or SIGINT once; cold: a second one, or SIGQUIT.

A child that is about to leave asks for a successor, which is forked while it still works and goes when it has ended
(``worker/orders.py``). How many children there should be is a word of the slots, written by the agent.
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
from functools import partial
from typing import TYPE_CHECKING

from celeriac.app.log import enter_process
from celeriac.codec.escape import one_line
from celeriac.supervisor.oom import OomKills
from celeriac.supervisor.place import Place
from celeriac.supervisor.process import END_OF_AGENT, fork, kick, run_agent, run_child
from celeriac.supervisor.starts import Starts
from celeriac.supervisor.stop import means_cold, say
from celeriac.worker.burial import NO_MORE, Died, notice
from celeriac.worker.kept import KeptOrders
from celeriac.worker.memory import NodeMemory
from celeriac.worker.options import NodeOptions
from celeriac.worker.outage import Word
from celeriac.worker.slot import GO, LEAVING, LEFT, READY, RETIRE, STANDBY, STARTING, TERMINATED, Running, Slots

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Supervisor"]

logger = logging.getLogger("celery.worker")

#: Seconds between two looks at the slots.
_LOOK = 0.2
#: A child that lived shorter than this counts as a failed start; replacements then slow down.
_SHORT_LIFE = 1.0
#: Seconds beyond the grace until what still lives is killed.
_MARGIN = 8.0
#: Leases for which a process's loop may stand still: its tasks are another's by then.
_SILENT_LEASES = 2
#: Seconds that a hung process has to write its stacks.
_ASKED = 0.3
#: Seconds that a surplus child has to become idle, before a busy one is asked to finish and leave.
_SURPLUS = 5.0
#: Processes a child at most: one that works, its successor, and one that finishes what is long.
_PER_CHILD = 3
#: Children beyond the greatest number asked for at the start that ``pool_grow`` may add.
_SPARE = 32


class Supervisor:
    """The main process of one node."""

    def __init__(self, app: Celery, options: NodeOptions, *, ready: Callable[[], None] | None = None) -> None:
        self.app = app
        self.options = options
        count = 1 if options.pool == "threads" else options.concurrency
        most = max(count, options.autoscale[0] if options.autoscale else 0) + _SPARE
        self._slots = Slots(1 + _PER_CHILD * most)
        self._slots.words.wanted = count
        self._children: list[Place] = []
        self._agent = Place(0, self._slots[0])
        self._agent_starts, self._starts = Starts(), Starts()
        self._oom = OomKills()
        self._link = f"celeriac-{os.getpid()}-{secrets.token_hex(8)}"
        self._notices_read, self._notices_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._memory = NodeMemory(self._slots, partial(kick, self._wake_write), most, KeptOrders(), Word())
        self._ready = ready
        self._looked = time.monotonic()
        self._surplus_since = 0.0
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
        self._fit()
        while not self._finished():
            self._wait()
            self._reap()
            self._enforce()
            self._announce()
            if self._stopping:
                self._press()
            else:
                self._fit()
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
        agent, app, options, link = self._agent, self.app, self.options, self._link
        agent.take(time.monotonic(), secrets.token_hex(6))

        def main() -> int:
            enter_process(agent.name)
            return run_agent(app, options, agent, link, self._notices_read, self._memory)

        agent.pid = fork(main)

    def _start_child(self, heir_of: Place | None = None) -> None:
        """Start one more, or the successor of one that still works."""
        child = next((place for place in self._children if not place.pid), None)
        if child is None:
            child = Place(len(self._children) + 1, self._slots[len(self._children) + 1])
            self._children.append(child)
        place, app, options, link = child, self.app, self.options, self._link
        place.take(time.monotonic(), secrets.token_hex(6), standby=heir_of is not None)

        def main() -> int:
            enter_process(place.name, place.index, tasks=True)
            return run_child(app, options, place, link, self._wake_write, self._memory.word)

        place.pid = fork(main)
        if heir_of is not None:
            heir_of.heir = place

    # -- how many ----------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """As many processes as there should be: start, hand over, retire."""
        now = time.monotonic()
        try:
            if not self._agent.pid and now >= self._agent_starts.not_before:
                self._start_agent()
        except OSError as error:
            self._cannot_start(self._agent_starts, "the agent", error)
        for place in self._children:
            if place.pid:
                self._hand_over(place)
        serving = [place for place in self._children if place.serves]
        self._shrink(serving, len(serving) - self._slots.words.wanted, now)
        try:
            while now >= self._starts.not_before and not self._stopping and self._has_room():
                heir_of = next((place for place in serving if place.wants_heir), None)
                if heir_of is None and len(serving) >= self._slots.words.wanted:
                    break
                self._start_child(heir_of)
                serving = [place for place in self._children if place.serves]
        except OSError as error:  # no more processes, descriptors, or memory: they may come back
            self._cannot_start(self._starts, "a child", error)

    def _has_room(self) -> bool:
        """Those that finish what is long must not pile up: rather is there one child less until one of them ends."""
        living = sum(place.pid != 0 for place in self._children)
        return living < _PER_CHILD * max(1, self._slots.words.wanted)

    def _cannot_start(self, starts: Starts, who: str, error: OSError) -> None:
        delay = starts.failed(time.monotonic(), time.monotonic(), str(error))
        logger.error("Cannot start %s: %s; next try in %.1f s: see ulimit -u, ulimit -n and memory", who, error, delay)

    @staticmethod
    def _hand_over(place: Place) -> None:
        """From one that leaves to its successor: it stops claiming when the successor stands by, which goes when the
        other runs nothing any more."""
        heir = place.heir
        if heir is None or not heir.pid or not heir.standby:
            return
        state = place.slot.state
        if state == LEFT:
            heir.order(GO)
        elif place.retiring:
            heir.order(RETIRE)
        elif state == LEAVING and heir.slot.state == STANDBY and place.slot.order != RETIRE:
            place.slot.order = RETIRE
            os.eventfd_write(place.bell, 1)

    def _shrink(self, serving: list[Place], surplus: int, now: float) -> None:
        """Retire idle children; a busy one only when none has become idle for some time: it finishes first."""
        if surplus <= 0:
            self._surplus_since = 0.0
            return
        self._surplus_since = self._surplus_since or now
        any_will_do = now - self._surplus_since > _SURPLUS
        leaving = [place for place in reversed(serving) if place.idle or any_will_do][:surplus]
        for place in leaving:
            place.order(RETIRE)
        if len(leaving) == surplus:
            self._surplus_since = 0.0

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

    def _bury(self, place: Place, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit code {code}"
        remark = ""
        if code == -signal.SIGKILL and not place.killed and place.slot.order != TERMINATED:
            if self._oom.grown():
                how = f"{how}, as the kernel was out of memory"
            else:
                remark = ", sent from outside"
            remark += " (if memory is short, see worker_max_memory_per_child)"
        now, running = time.monotonic(), place.slot.running()
        is_agent = place is self._agent
        # One that died of a task had started well: that task is counted, and must not keep the others waiting.
        worked = code == 0 if is_agent else place.slot.tasks > 0 or place.retiring
        early = not is_agent and place.slot.state < READY
        short = (now - place.began < _SHORT_LIFE or early) and running is None and not worked
        starts, delay = self._agent_starts if is_agent else self._starts, 0.0
        if short and not self._stopping:
            delay = starts.failed(place.began, now, how)
        else:
            starts.worked(place.began)
        if (code or short) and not self._stopping:
            again = f", next start in {delay:.1f} s" if delay else ""
            logger.error(
                "Process %s (pid %d) died by %s%s%s%s", place.name, place.pid, how, remark, _with(running), again
            )
            self._say_why(place, starts, now)
        place.pid = 0
        if not is_agent:
            if not STARTING <= place.slot.state < READY:  # those have claimed nothing, and in an outage nobody reads
                self._tell(place, how, running)
            if place.heir is not None and place.heir.pid and place.heir.standby:
                place.heir.order(RETIRE if place.retiring else GO)
        # Nobody runs there: the agent must not keep the lease of its task alive.
        place.slot.reset()

    def _say_why(self, place: Place, starts: Starts, now: float) -> None:
        """The stacks of one that crashed, and a loop of failed starts in one line."""
        stacks = place.stacks.read() if not place.asked else ""
        if stacks:
            logger.error("Process %s (pid %d) was here:\n%s", place.name, place.pid, stacks)
        line = starts.line(now)
        if line:
            logger.critical(line)
        if starts is self._starts:
            self._slots.words.failing = starts.failures if starts.loops else 0

    def _tell(self, child: Place, how: str, running: Running | None) -> None:
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
            tasks=child.slot.tasks,
            early=culprit is not None and culprit.early,
            reply_to=culprit.reply_to if culprit else "",
        )
        os.write(self._notices_write, notice(died))

    def _enforce(self) -> None:
        """Hard limits, children that never came up, and processes whose loop stands still."""
        now = time.monotonic()
        # A supervisor that was stopped itself, with all of its node, must not take the others for hung.
        passed, self._looked = min(now - self._looked, 1.0), now
        for place in (self._agent, *self._children):
            if not place.pid or place.killed:
                continue
            running = place.slot.running()
            if place.asked:
                if now - place.asked > _ASKED:
                    self._end_hung(place)
            elif running is not None and running.deadline is not None and now > running.deadline:
                place.over_limit, place.over_token = running.limit, running.token
                logger.error("Task %s ran longer than %ss: its process ends", one_line(running.id), running.limit)
                place.kill(signal.SIGKILL)
            elif not self._stopping:
                self._look_after(place, now, passed)

    def _look_after(self, place: Place, now: float, passed: float) -> None:
        options = self.options
        why = place.hangs(now, passed, start=options.proc_alive, silence=_SILENT_LEASES * options.lease)
        if why:
            logger.error("Process %s (pid %d) %s: it is replaced", place.name, place.pid, why)
            place.asked = now
            place.stacks.ask(place.pid)
        elif place.slot.state >= READY and now - place.began > _SHORT_LIFE and self._starts.worked(place.began):
            self._slots.words.failing = 0
            logger.warning("Process %s works: the starts have recovered", place.name)

    @staticmethod
    def _end_hung(place: Place) -> None:
        what = place.stacks.read() or "it did not write its stacks: it is stopped, or not scheduled"
        logger.error("Process %s (pid %d) was here:\n%s", place.name, place.pid, what)
        place.kill(signal.SIGKILL)

    def _announce(self) -> None:
        if self._ready is None:
            return
        up = sum(child.serves and child.slot.state >= READY for child in self._children)
        if up >= self._slots.words.wanted:
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
                place.kill(signal.SIGTERM)
        if self._cold or overdue:
            for child in living:
                child.ended = True
                child.kill(signal.SIGKILL)
        if not living and self._agent.pid and not self._agent.over_limit:
            self._agent.over_limit = time.monotonic()
            os.write(self._notices_write, NO_MORE)
            self._agent.kill(END_OF_AGENT)
        elif self._agent.over_limit and time.monotonic() - self._agent.over_limit > _MARGIN:
            self._agent.kill(signal.SIGKILL)

    def _finished(self) -> bool:
        return bool(self._stopping) and not any(place.pid for place in (self._agent, *self._children))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"  # these have numbers only


def _with(running: Running | None) -> str:
    return f" while it ran task {one_line(running.id)}" if running is not None else ""
