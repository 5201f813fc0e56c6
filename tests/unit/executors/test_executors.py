"""The three executors: what is fed is run once and handed back; what has not started can be recalled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.executors.coroutines import CoroutinesExecutor
from celeriac.executors.inline import InlineExecutor
from celeriac.executors.limits import SoftLimit
from celeriac.executors.threads import ThreadsExecutor
from celeriac.model.message import Delivery, Message

PATIENCE = 30.0


def delivery(number: int) -> Delivery:
    message = Message(id=f"id-{number}", task="t", headers={}, body=b"")
    return Delivery(message=message, token=f"t:{number}", queue="celery")


class Sink:
    """Collects what is done; ``wait(n)`` blocks until n have come."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._condition = threading.Condition()

    def __call__(self, batch: Sequence[Any]) -> None:
        with self._condition:
            self.items.extend(batch)
            self._condition.notify_all()

    def wait(self, count: int) -> list[Any]:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.items) >= count, PATIENCE), self.items
            return list(self.items)


class Gate:
    """A task body that says when it runs and waits to be let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def __call__(self, lent: Delivery) -> str:
        self.entered.release()
        assert self.let_go.wait(PATIENCE)
        return lent.token


Run = Callable[[Delivery], Any]


def inline(run: Run, done: Sink) -> InlineExecutor:
    return InlineExecutor(run, done, lambda name: 0.0)


def threads(run: Run, done: Sink) -> ThreadsExecutor:
    return ThreadsExecutor(run, done, 2, lambda lent: None, lambda lent, exc: exc)


@contextmanager
def serving(executor: InlineExecutor | ThreadsExecutor) -> Iterator[None]:
    thread = threading.Thread(target=executor.serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "serve() must return after stop()"


@pytest.mark.parametrize("make", [inline, threads])
def test_everything_fed_is_run_once(make: Any) -> None:
    done = Sink()
    executor = make(lambda lent: lent.token, done)
    with serving(executor):
        for start in range(0, 1000, 100):
            executor.feed([delivery(number) for number in range(start, start + 100)])
        assert sorted(done.wait(1000)) == sorted(f"t:{number}" for number in range(1000))
    assert executor.active() == []


def test_inline_keeps_the_order() -> None:
    done = Sink()
    executor = inline(lambda lent: lent.token, done)
    with serving(executor):
        executor.feed([delivery(number) for number in range(300)])
        assert done.wait(300) == [f"t:{number}" for number in range(300)]


@pytest.mark.parametrize(("make", "running"), [(inline, 1), (threads, 2)])
def test_what_has_not_started_is_recalled(make: Any, running: int) -> None:
    done, gate = Sink(), Gate()
    executor = make(gate, done)
    with serving(executor):
        executor.feed([delivery(number) for number in range(10)])
        for _ in range(running):
            assert gate.entered.acquire(timeout=PATIENCE)
        assert executor.waiting() == 10 - running
        assert len(executor.active()) == running
        back = executor.recall()
        assert [lent.token for lent in back] == [f"t:{number}" for number in range(running, 10)]
        gate.let_go.set()
        assert len(done.wait(running)) == running
    assert len(done.items) == running


def test_finished_work_behind_a_long_task_is_handed_over_by_the_tick() -> None:
    done, gate = Sink(), Gate()
    executor = inline(lambda lent: gate(lent) if lent.token == "t:1" else lent.token, done)
    with serving(executor):
        executor.feed([delivery(0), delivery(1)])
        assert gate.entered.acquire(timeout=PATIENCE)
        executor.tick(0.0)
        assert done.wait(1) == ["t:0"]
        gate.let_go.set()


def test_a_task_expected_to_be_long_does_not_start_before_the_hand_over() -> None:
    done, gate = Sink(), Gate()
    executor = InlineExecutor(lambda lent: gate(lent) if lent.token == "t:1" else lent.token, done, lambda name: 1.0)
    with serving(executor):
        executor.feed([delivery(0), delivery(1)])
        assert gate.entered.acquire(timeout=PATIENCE)
        assert done.wait(1) == ["t:0"]
        gate.let_go.set()


def test_stop_waits_for_what_was_fed() -> None:
    done = Sink()
    executor = inline(lambda lent: lent.token, done)
    executor.feed([delivery(number) for number in range(5)])
    executor.stop()
    executor.serve()
    assert len(done.items) == 5


def coroutines(run: Any, done: Sink, limit: int = 3) -> CoroutinesExecutor:
    return CoroutinesExecutor(run, done, limit)


def test_coroutines_run_up_to_their_limit_at_once() -> None:
    done, most, now = Sink(), 0, 0

    async def run(lent: Delivery) -> str:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return lent.token

    executor = coroutines(run, done)
    executor.feed([delivery(number) for number in range(50)])
    assert sorted(done.wait(50)) == sorted(f"t:{number}" for number in range(50))
    assert most == 3
    executor.stop()


def test_coroutines_are_recalled_and_cancelled() -> None:
    done, entered = Sink(), threading.Semaphore(0)

    async def run(lent: Delivery) -> str:
        entered.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cancelled"
        return "never"

    executor = coroutines(run, done)
    executor.feed([delivery(number) for number in range(5)])
    for _ in range(3):
        assert entered.acquire(timeout=PATIENCE)
    assert [lent.token for lent in executor.recall()] == ["t:3", "t:4"]
    assert executor.cancel("t:0")
    assert not executor.cancel("t:4")
    assert done.wait(1) == ["cancelled"]
    executor.cancel("t:1")
    executor.cancel("t:2")
    done.wait(3)
    executor.stop()


def test_a_soft_limit_in_a_thread_raises_once() -> None:
    done, entered = Sink(), threading.Event()

    def run(lent: Delivery) -> str:
        try:
            entered.set()
            while True:
                pass
        except SoftTimeLimitExceeded:
            return "limited"

    executor = ThreadsExecutor(run, done, 1, lambda lent: 0.0, lambda lent, exc: exc)
    with serving(executor):
        executor.feed([delivery(0)])
        assert entered.wait(PATIENCE)
        executor.tick(10**9)
        executor.tick(10**9)
        assert done.wait(1) == ["limited"]


def test_a_soft_limit_on_the_main_thread_raises_below_the_trampoline_only() -> None:
    import signal

    soft = SoftLimit()
    before = signal.getsignal(signal.SIGUSR1)

    def body() -> str:
        try:
            while True:
                pass
        except SoftTimeLimitExceeded as limit:
            return str(limit)

    def trampoline(run: Callable[[], str]) -> str:
        return run()

    try:
        soft.install(trampoline)
        soft.arm(0.0, 0.0)
        soft.knock(1.0)  # outside the trampoline: nothing is raised, and the next knock still counts
        assert soft.deadline == 0.0
        timer = threading.Timer(0.01, soft.knock, [1.0])
        timer.start()
        assert "SoftTimeLimitExceeded" in trampoline(body)
        assert soft.deadline is None
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_a_coroutine_puts_into_its_context_stays_with_it() -> None:
    done, tenant = Sink(), ContextVar("tenant", default="none")

    async def run(lent: Delivery) -> str:
        before = tenant.get()
        tenant.set(lent.token)
        await asyncio.sleep(0)
        return f"{before} {tenant.get()}"

    executor = coroutines(run, done, limit=1)
    executor.feed([delivery(number) for number in range(3)])
    assert done.wait(3) == ["none t:0", "none t:1", "none t:2"]
    executor.stop()


def test_a_cancelled_coroutine_does_not_cancel_the_next() -> None:
    done, entered = Sink(), threading.Semaphore(0)

    async def run(lent: Delivery) -> str:
        entered.release()
        if lent.token == "t:1":
            async with asyncio.timeout(PATIENCE):  # looks at its asyncio task's requests to cancel
                await asyncio.sleep(0)
            return "ran"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cancelled"
        return "never"

    executor = coroutines(run, done, limit=1)
    executor.feed([delivery(0), delivery(1)])
    assert entered.acquire(timeout=PATIENCE)
    assert executor.cancel("t:0")
    assert done.wait(2) == ["cancelled", "ran"]
    executor.stop()


def test_a_cancellation_that_comes_too_late_hits_nobody_else() -> None:
    done, ending, go_on = Sink(), threading.Event(), threading.Event()

    async def run(lent: Delivery) -> str:
        try:
            await asyncio.sleep(0)
            if lent.token == "t:0":
                ending.set()
                go_on.wait(PATIENCE)  # its last step: it does not wait for its loop any more
                return "over"
            for _ in range(5):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled"
        return "ran"

    executor = coroutines(run, done, limit=1)
    executor.feed([delivery(0), delivery(1)])
    assert ending.wait(PATIENCE)
    executor.cancel("t:0")
    go_on.set()
    assert done.wait(2) == ["over", "ran"]
    executor.stop()


def test_coroutines_that_never_wait_leave_the_others_their_turn() -> None:
    done, order = Sink(), []

    async def run(lent: Delivery) -> str:
        if lent.token == "t:0":
            await asyncio.sleep(0)
        order.append(lent.token)
        return lent.token

    executor = coroutines(run, done, limit=2)
    executor.feed([delivery(number) for number in range(100)])
    done.wait(100)
    assert order.index("t:0") < 10
    executor.stop()


def test_a_thread_that_just_takes_one_up_is_not_taken_for_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    done, taking, go_on = Sink(), threading.Event(), threading.Event()

    class Time:
        """Stops the first thread between the inbox and its word that it is busy."""

        @staticmethod
        def monotonic() -> float:
            if threading.current_thread().name == "task-0":
                taking.set()
                go_on.wait(PATIENCE)
            return 0.0

    monkeypatch.setattr("celeriac.executors.threads.time", Time)
    executor = threads(lambda lent: lent.token, done)
    with serving(executor):
        executor.feed([delivery(0)])
        assert taking.wait(PATIENCE)
        executor.feed([delivery(1)])
        assert done.wait(1) == ["t:1"]
        go_on.set()
        assert done.wait(2) == ["t:1", "t:0"]
    assert executor.recall() == []


def test_a_limit_that_comes_too_late_hits_nobody_else() -> None:
    """Tasks that end just when their limit does: each has one end, and no thread is lost."""
    count = 2_000
    done = Sink()

    def below(body: Callable[[], str]) -> str:
        return body()

    def body() -> str:
        until = time.perf_counter() + 0.0003
        while time.perf_counter() < until:
            pass
        return "in time"

    def run(lent: Delivery) -> Any:
        return lent.token, below(body)

    executor = ThreadsExecutor(run, done, 4, lambda lent: 0.0003, lambda lent, exc: (lent.token, "limited"), below)
    ended = threading.Event()

    def strike() -> None:
        while not ended.is_set():
            executor.tick(time.monotonic())

    striking = threading.Thread(target=strike, daemon=True)
    with serving(executor):
        striking.start()
        executor.feed([delivery(number) for number in range(count)])
        outcomes = done.wait(count)
        ended.set()
        striking.join()
        executor.feed([delivery(count + number) for number in range(4)])
        done.wait(count + 4)
    assert len({token for token, _ in outcomes}) == len(outcomes) == count
    assert not executor._struck
