"""Workers inside the process of a test (``celery.contrib.testing.worker``): the real worker, in a thread.

For test suites, and for the fixtures of ``celeriac.contrib.pytest``. Any number of them may run at once. Child and
agent are those of a node; there is no supervisor, so nothing here kills a task: hard limits do not apply to
synchronous tasks.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module, reload
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac import signals
from celeriac.client import resolver
from celeriac.client.registry import Queues
from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name
from celeriac.result import allow_join_result
from celeriac.signals import Signal
from celeriac.supervisor.node import Given, pool_name, resolve
from celeriac.worker.inprocess import in_process
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.worker.child import Child

__all__ = [
    "WORKER_LOGLEVEL",
    "TestWorkController",
    "setup_app_for_worker",
    "start_worker",
    "test_worker_started",
    "test_worker_starting",
    "test_worker_stopped",
]

logger = logging.getLogger("celery.worker")

#: Level of the worker's loggers; None leaves logging as the test suite has set it up.
WORKER_LOGLEVEL: str | int | None = os.environ.get("WORKER_LOGLEVEL")

test_worker_starting = Signal(name="test_worker_starting")
test_worker_started = Signal(name="test_worker_started", providing_args=("worker", "consumer"))
test_worker_stopped = Signal(name="test_worker_stopped", providing_args=("worker",))

#: Seconds in which a worker has to come up, and between the end of the grace and that of its thread.
_START_LIMIT = 30.0
_MARGIN = 10.0
_LAST_MOMENT = 0.05
_numbers = itertools.count(1)
#: Options of Celery's worker that mean nothing to one that lives in a thread.
_MEANINGLESS = frozenset(
    {
        *("autoscale", "beat", "max_memory_per_child", "max_tasks_per_child", "optimization", "pidfile", "quiet"),
        *("loglevel", "logfile", "no_color", "redirect_stdouts", "redirect_stdouts_level", "ready_callback"),
        *("schedule", "statedb", "without_gossip", "without_mingle"),
    }
)


class TestWorkController:
    """A worker that a test has started: ``start`` blocks the thread that calls it, until ``stop``.

    Args:
        app: the app whose tasks it runs.
        hostname: name of the node; a new one for each worker.
        concurrency: tasks at a time, with ``pool="threads"``.
        pool: ``solo`` or ``threads``. ``prefork`` becomes ``threads``: a test's process cannot be forked safely.
        queues: names, also separated by commas; default: what the settings say.
        exclude_queues: names that are not consumed from.
        shutdown_timeout: seconds that running tasks have once ``stop`` was called; then they go back to their queues.
        time_limit, soft_time_limit: seconds, for tasks without limits of their own.
        task_events: send events.
        without_heartbeat: off: send heartbeats.
        prefetch_multiplier: most tasks held for each that can run.
        purge: drop what waits in the queues first.
        **ignored: options of Celery's worker that mean nothing here; any other raises TypeError.
    """

    __test__ = False  # pytest takes classes that are called Test... for tests

    def __init__(
        self,
        app: Celery,
        *,
        hostname: str | None = None,
        concurrency: int = 1,
        pool: str = "solo",
        queues: Iterable[str] | str = (),
        exclude_queues: Iterable[str] | str = (),
        shutdown_timeout: float = 10.0,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        task_events: bool = False,
        without_heartbeat: bool = True,
        prefetch_multiplier: int | None = None,
        purge: bool = False,
        **ignored: Any,
    ) -> None:
        if unknown := sorted(set(ignored) - _MEANINGLESS):
            raise TypeError(f"a worker has no option {unknown[0]!r}")
        self.app = app
        self.hostname = hostname or f"test{next(_numbers)}@{socket.gethostname()}"
        self.pid = os.getpid()
        self.shutdown_timeout = shutdown_timeout
        given = Given(
            queues=_names(queues),
            exclude_queues=_names(exclude_queues),
            pool=_known_pool(pool, concurrency),
            concurrency=concurrency,
            prefetch_multiplier=prefetch_multiplier,
            time_limit=time_limit,
            soft_time_limit=soft_time_limit,
            events=task_events,
            heartbeats=not without_heartbeat,
            purge=purge,
        )
        resolved = resolve(app.conf, Queues.from_settings(app.conf), given, hostname=self.hostname)
        self.options: NodeOptions = replace(resolved, grace=shutdown_timeout)
        self._started = threading.Event()
        self._child: Child | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def concurrency(self) -> int:
        """Synchronous tasks at a time."""
        return self.options.concurrency

    @property
    def queues(self) -> tuple[str, ...]:
        """What it consumes from."""
        return self.options.queues

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Run until ``stop`` is called; synchronous tasks run on the calling thread. Raises what ends the worker."""
        app = self.app
        app.set_current()
        app.loader.init_worker()
        if self.options.purge:
            app.control.purge()
        signals.worker_init.send(sender=self)
        signals.worker_process_init.send(sender=None)
        self._child = in_process(app, self.options, stop_node=self.stop, ready=self._on_ready)
        try:
            self._child.serve()
        finally:
            signals.worker_shutdown.send(sender=self)

    def _on_ready(self) -> None:
        self._started.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=None)

    def start_thread(self) -> None:
        """``start`` in a thread of its own; returns when the worker is up. Raises what kept it from starting."""
        self._thread = threading.Thread(target=self._run, name=self.hostname, daemon=True)
        self._thread.start()
        self.ensure_started()

    def _run(self) -> None:
        try:
            self.start()
        except SystemExit:
            pass  # WorkerShutdown or WorkerTerminate: a task asked for it
        except BaseException as error:  # noqa: BLE001 - raised to the test, by ensure_started or join
            self._failure = error
        finally:
            self._started.set()

    def ensure_started(self, timeout: float = _START_LIMIT) -> None:
        """Wait until the worker is up; ``timeout`` in seconds. Raises RuntimeError from what kept it from starting."""
        if not self._started.wait(timeout):
            broker = resolver.mask(self.app.broker_url)
            raise RuntimeError(f"worker {self.hostname} did not start within {timeout:g} s; its broker is {broker}")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise RuntimeError(f"worker {self.hostname} failed: {failure!r}") from failure

    def stop(self, in_signal_handler: bool = False, exitcode: int | None = None) -> None:
        """Begin the shutdown: claim no more, let running tasks end. Idempotent, from any thread."""
        if self._child is not None:
            self._child.stop()

    def terminate(self, in_signal_handler: bool = False) -> None:
        """Shut down without waiting for running tasks: they go back to their queues."""
        if self._child is not None:
            self._child.stop(grace=0.0)

    def join(self) -> None:
        """Wait for the end of the worker and of all its threads.

        Raises RuntimeError naming the tasks that still run, or from what made the worker fail.
        """
        thread = self._thread
        if thread is None:
            return
        child = self._child
        if child is None or not child.stopped.wait(self.shutdown_timeout + _MARGIN) or not child.sync.active():
            thread.join(_MARGIN)
        else:
            thread.join(_LAST_MOMENT)  # what runs has had its time
        if thread.is_alive():
            raise RuntimeError(
                f"worker {self.hostname} did not stop within {self.shutdown_timeout:g} s: {self._what_runs()}. "
                "The messages went back to their queues, the thread goes on; raise shutdown_timeout if tasks take long"
            )
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise RuntimeError(f"worker {self.hostname} failed: {failure!r}") from failure

    def _what_runs(self) -> str:
        running = self._child.running() if self._child is not None else []
        if not running:
            return "no task runs"
        now = time.monotonic()
        return ", ".join(f"task {d.message.task}[{d.message.id}] runs for {now - began:.1f} s" for d, began in running)

    # ------------------------------------------------------------ while it runs

    def reload(self, modules: Iterable[str] | None = None, reload: bool = False, reloader: Any = None) -> None:
        """Import task modules (default: those imported before), anew with ``reload``.

        Tasks declared after the start need no reload: workers look tasks up by name.
        """
        for name in self.app.loader.task_modules if modules is None else modules:
            module = import_module(name)
            if reload:
                (reloader or _reload)(module)

    def stats(self) -> dict[str, Any]:
        """How many tasks of each name it has run, and what else ``inspect stats`` counts."""
        runner = self._child.runner if self._child is not None else None
        return {"total": dict(runner.totals) if runner else {}, "pid": self.pid, "clock": "0"}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.hostname} queues={','.join(self.queues)}>"


_reload = reload


def _known_pool(pool: Any, concurrency: int) -> str:
    name = pool_name(pool)
    if name == "prefork":
        logger.info("A worker inside a test does not fork: it runs %d threads", concurrency)
        return "threads"
    return name


def _names(given: Iterable[str] | str) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in parts)


@contextmanager
def start_worker(
    app: Celery,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int | None = WORKER_LOGLEVEL,
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    WorkController: type[TestWorkController] = TestWorkController,  # noqa: N803 - Celery's name
    **kwargs: Any,
) -> Iterator[TestWorkController]:
    """Run a worker of ``app`` while the block runs (``celery.contrib.testing.worker.start_worker``).

    When the block ends, the worker has stopped and left no thread behind.

    Args:
        app: becomes the current and the default app.
        concurrency: tasks at a time, with ``pool="threads"``.
        pool: ``solo`` or ``threads``.
        loglevel: level of the worker's loggers; None, unless ``WORKER_LOGLEVEL`` is in the environment: as they are.
        logfile: file that the worker's log lines are appended to.
        perform_ping_check: send a task first and wait for its result, if the app keeps results.
        ping_task_timeout: seconds to wait for it.
        shutdown_timeout: seconds that running tasks have at the end of the block.
        WorkController: class of the worker.
        **kwargs: see ``TestWorkController``.

    Raises:
        RuntimeError: the worker did not start, or did not stop: the message names the tasks that still run.
    """
    test_worker_starting.send(sender=app)
    worker: TestWorkController | None = None
    with ExitStack() as stack:
        stack.callback(lambda: test_worker_stopped.send(sender=app, worker=worker))
        stack.enter_context(_logging(loglevel, logfile))
        setup_app_for_worker(app)
        worker = WorkController(
            app=app, concurrency=concurrency, pool=pool, shutdown_timeout=shutdown_timeout, **kwargs
        )
        try:
            worker.start_thread()
            if perform_ping_check:
                _ping(app, worker, ping_task_timeout)
            yield worker
        except BaseException as error:
            _stop(worker, error)
            raise
        _stop(worker, None)


def _stop(worker: TestWorkController, error: BaseException | None) -> None:
    """Stop; what goes wrong then does not hide the error of a test, but is noted on it."""
    worker.stop()
    try:
        worker.join()
    except RuntimeError as trouble:
        if error is None:
            raise
        error.add_note(str(trouble))


def _ping(app: Celery, worker: TestWorkController, timeout: float) -> None:
    from celeriac.contrib.testing import tasks

    if not app.backend.enabled or not worker.queues:
        return  # being up is all that can be known
    with allow_join_result():
        result = app.tasks[tasks.ping.name].apply_async(queue=worker.queues[0], expires=timeout)
        answer = _answer(result, worker, time.monotonic() + timeout)
    assert answer == "pong", answer
    result.forget()


def _answer(result: Any, worker: TestWorkController, deadline: float) -> Any:
    """The ping's result; a look at the worker twice a second."""
    while True:
        try:
            return result.get(timeout=min(0.5, max(0.0, deadline - time.monotonic())))
        except TimeoutError as error:
            worker.ensure_started()  # raises what has ended it meanwhile
            if time.monotonic() >= deadline:
                raise RuntimeError(f"worker {worker.hostname} did not run the task that tries it in time") from error


def setup_app_for_worker(app: Celery, loglevel: Any = None, logfile: str | None = None) -> None:
    """Make ``app`` complete, current and default. Logging is ``start_worker``'s business."""
    from celeriac.contrib.testing import tasks  # noqa: F401  # declares celery.ping

    app.finalize()
    app.set_current()
    app.set_default()


@contextmanager
def _logging(level: str | int | None, file: str | None) -> Iterator[None]:
    """The level and file of Celery's loggers, for a while. The root logger is left alone."""
    log = logging.getLogger("celery")
    before = log.level
    handler = logging.FileHandler(file) if file else None
    if level is not None:
        log.setLevel(level.upper() if isinstance(level, str) else level)
    if handler is not None:
        handler.setFormatter(logging.Formatter("[%(asctime)s: %(levelname)s/%(threadName)s] %(message)s"))
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(before)
        if handler is not None:
            log.removeHandler(handler)
            handler.close()
