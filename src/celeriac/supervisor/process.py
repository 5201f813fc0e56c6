"""The processes of a node, as they start: what is done after the fork and before the first task."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import logging
import os
import random
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from celeriac import signals
from celeriac.clock import SystemClock
from celeriac.supervisor.embedded import embedded
from celeriac.supervisor.place import Place
from celeriac.worker.adapters import broker_of, store_of
from celeriac.worker.agent import Agent
from celeriac.worker.child import Child
from celeriac.worker.connect import connected
from celeriac.worker.lifelines import Lifeline, Lifelines
from celeriac.worker.link import LinkServer, attend
from celeriac.worker.memory import NodeMemory
from celeriac.worker.options import NodeOptions
from celeriac.worker.orders import Orders
from celeriac.worker.outage import Word
from celeriac.worker.remote import remote_services
from celeriac.worker.report import Report
from celeriac.worker.runner import Runner
from celeriac.worker.slot import CONNECTING, READY, STARTING, Slot
from celeriac.worker.standin import StandIn

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["END_OF_AGENT", "EX_LOST_PARENT", "fork", "kick", "run_agent", "run_child"]

logger = logging.getLogger("celery.worker")

_PR_SET_PDEATHSIG = 1
#: What ends the agent, when the children are gone and told.
END_OF_AGENT = signal.SIGUSR2
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_libc = ctypes.CDLL(None, use_errno=True)
#: Seconds after which a thread that wants the interpreter gets it: the I/O thread and the task's hand over often. Many
#: threads of tasks would wake each other up for nothing: they have the default (15 context switches a task against 4).
_SWITCH = 0.0005
#: Exit code of a process whose parent was gone before it could bind its life to it.
EX_LOST_PARENT = 75
#: Exit code of a child that found no way to start, or to go on.
EX_FAILED = 70


def fork(main: Callable[[], int]) -> int:
    """Fork a process that runs ``main`` and leaves with its value; returns the pid.

    The process dies with its parent (PDEATHSIG), takes no signal handler with it, and never returns from here.
    Raises ``OSError`` when the system has no room for another process.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal to the new process that came before its handlers are its own would run the supervisor's, and be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = EX_FAILED
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(EX_LOST_PARENT)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C goes to the whole process group; the supervisor decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        random.seed(secrets.randbits(64))
        code = main()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last stop of a process: say why, never unwind into the supervisor's frames
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Without the interpreter's exit handlers: they belong to the supervisor.
        os._exit(code)


def run_child(app: Celery, options: NodeOptions, place: Place, link: str, wake: int, word: Word | None = None) -> int:
    """A child's life; returns its exit code. Sends worker_process_init and worker_process_shutdown. ``wake`` is the
    writing end of the supervisor's pipe; ``word`` is the node's."""
    slot, owner = place.slot, place.owner
    slot.live(os.getpid(), STARTING)
    place.stacks.enter()
    gc.freeze()
    orders, greeted = Orders(slot, place.bell, functools.partial(kick, wake)), asyncio.Event()
    lifeline = Lifeline(link, owner)
    child = Child(
        app,
        options,
        open_broker=lambda: broker_of(app, owner, lifeline),
        open_store=lambda: store_of(app),
        slot=slot,
        extras=[
            lambda child: attend(child, link, greeted, lifeline.renew),
            lambda child: _stop_on_signal(child, wake_read),
        ],
        connecting=lambda: slot.live(os.getpid(), CONNECTING),
        ready=lambda: orders.say(READY),
        abandon=lambda: _leave(EX_FAILED if child.failed is not None else 0),
        orders=orders,
        greeted=greeted,
        word=word,
    )

    # Signals reach the I/O loop through this pipe even while the main thread is in C code and runs no handler.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    # The pipe is read once the servers have answered: until then, and where a task took the descriptor, this stops it.
    signal.signal(signal.SIGTERM, lambda signum, frame: child.stop())
    if options.pool != "threads":
        sys.setswitchinterval(_SWITCH)
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender=None)
    child.serve()
    if child.exit_reason:
        logger.info("Child %d leaves to be replaced: %s", os.getpid(), child.exit_reason)
    signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    return 0


async def _stop_on_signal(child: Child, wake_read: int) -> None:
    """Begin the shutdown when SIGTERM comes."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(wake_read, "rb")
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    while signals_read := await reader.read(64):
        if signal.SIGTERM in signals_read:
            child.stop()
            return
    # A task has closed the other end: the signal's handler is left. Never read it again, rather than for ever.


def kick(wake: int) -> None:
    """Wake the supervisor: something of its node's has changed in the slots."""
    try:
        os.write(wake, b"\0")
    except OSError:
        pass  # it is awake anyway, or a task has closed this: it looks a few times a second


def run_agent(app: Celery, options: NodeOptions, place: Place, link: str, notices: int, node: NodeMemory) -> int:
    """The agent's life; ``notices`` is the reading end of the supervisor's pipe."""
    place.slot.live(os.getpid(), CONNECTING)
    place.stacks.enter()
    gc.freeze()
    asyncio.run(_agent(app, options, place, link, notices, node))
    return 0


async def _agent(app: Celery, options: NodeOptions, place: Place, link: str, notices: int, node: NodeMemory) -> None:
    loop = asyncio.get_running_loop()
    beating = loop.create_task(_beat(place.slot))
    stop = asyncio.Event()
    loop.add_signal_handler(END_OF_AGENT, stop.set)
    # Whoever stops a node may send SIGTERM to its whole process group: the agent stays until the children are settled.
    said = functools.cache(functools.partial(_say_shutting_down, options))
    loop.add_signal_handler(signal.SIGTERM, said)
    server, lifelines = LinkServer(link, node.kept), Lifelines(link)
    broker = broker_of(app, place.owner)
    store = store_of(app)
    report = Report.of(options)
    runner = Runner(app, options, slot=None, report=report, results=store is not None)
    supervisor = os.getppid()
    agent = Agent(
        app,
        options,
        runner,
        broker=broker,
        store=store,
        link=server,
        stop_node=lambda: os.kill(supervisor, signal.SIGTERM),
        memory=node,
        more=embedded(app, options),
        lifelines=lifelines,
    )
    agent.resume(server.orders)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(notices, "rb", closefd=False))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(lifelines.serve()), group.create_task(server.serve())]
            if await connected(broker, store, agent.queues, stop, word=node.word):
                stand_in = StandIn(broker, node.slots.taken, SystemClock(), lease=options.lease)
                services = (*agent.services(), *remote_services(agent), stand_in.run)
                tasks += [group.create_task(service()) for service in services]
                burials = group.create_task(agent.burial.notices(reader))
                tasks.append(burials)
                signals.worker_ready.send(sender=agent)
                await stop.wait()
                said()
                await _finish(agent, burials)
            for task in tasks:
                task.cancel()
    finally:
        beating.cancel()
        signals.worker_shutdown.send(sender=agent)
        await broker.close()
        if store is not None:
            await store.close()


async def _beat(slot: Slot) -> None:
    """Show the supervisor that this loop moves."""
    while True:
        slot.pulse(time.monotonic(), 0)
        await asyncio.sleep(1.0)


def _say_shutting_down(options: NodeOptions) -> None:
    signals.worker_shutting_down.send(sender=options.hostname, sig="SIGTERM", how="Warm", exitcode=0)


async def _finish(agent: Agent, burials: asyncio.Task[None]) -> None:
    """Write what is known of dead children; not longer than a server that is away deserves."""
    try:
        async with asyncio.timeout(3.0):
            await burials
            await agent.completer.drain()
    except TimeoutError:
        logger.warning("Cannot write the outcomes of dead children: their tasks go back when their leases expire")
