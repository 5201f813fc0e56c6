"""What all tests of the suite use: messages, a way to run coroutines, children, and claims that drain.

Knows the ports only.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import itertools
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.settle import Accept
from celeriac.ports import Broker, Unified
from celeriac.testing.conformance.harness import Harness

__all__ = [
    "EMPTY_BODY",
    "Background",
    "accept",
    "ample",
    "asynchronous",
    "child",
    "ended",
    "gathered",
    "ids",
    "message",
    "messages",
    "only",
    "take",
    "unified",
    "well_formed",
]

P = ParamSpec("P")
Suite = TypeVar("Suite")

EMPTY_BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
#: A test that takes longer hangs.
_LONGEST = 60.0
_numbers = itertools.count(1)


def message(
    task_id: str = "",
    queue: str = "q",
    *,
    task: str = "conformance.task",
    due: float | None = None,
    headers: dict[str, Any] | None = None,
    body: bytes = EMPTY_BODY,
    **fields: Any,
) -> Message:
    """A message as a producer hands it over; the header ``eta`` tells its due time."""
    task_id = task_id or f"id-{next(_numbers)}"
    if due is not None:
        due = round(due, 6)
    eta = None if due is None else datetime.fromtimestamp(due, UTC).isoformat()
    known = {"lang": "py", "task": task, "id": task_id, "eta": eta, "expires": None, "retries": 0}
    return Message(
        id=task_id, task=task, headers={**known, **(headers or {})}, body=body, queue=queue, due=due, **fields
    )


def ample(harness: Harness) -> float:
    """A time in seconds of which tests let pass a part, and do something in the rest, on a loaded machine."""
    return max(harness.lease, harness.late) * 2


def messages(*task_ids: str, queue: str = "q", **fields: Any) -> list[Message]:
    """Several messages that differ in their ids."""
    return [message(task_id, queue, **fields) for task_id in task_ids]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Task ids in order."""
    return [each.message.id for each in deliveries]


async def take(broker: Broker, *queues: str, limit: int = 1000, wait: float = 0.0) -> list[Delivery]:
    """Claim until nothing is there or ``limit`` is reached; waits for the first only."""
    taken: list[Delivery] = []
    while len(taken) < limit:
        more = await broker.claim(queues or ("q",), limit=limit - len(taken), wait=0.0 if taken else wait)
        if not more:
            break
        taken += more
    return taken


async def only(broker: Broker, *queues: str, wait: float = 0.0) -> Delivery:
    """The one delivery that is there."""
    taken = await take(broker, *queues, wait=wait)
    assert len(taken) == 1, f"claim: exactly one message is ready, got {ids(taken)}"
    return taken[0]


async def accept(broker: Broker, deliveries: Sequence[Delivery]) -> None:
    """End deliveries that are held."""
    refused = await broker.settle([Accept(each) for each in deliveries])
    assert not refused, "settle: a token that is held is not refused"


def unified(harness: Harness, broker: Broker) -> Unified:
    """The broker as one that finishes; skips the test when it is none."""
    if not isinstance(broker, Unified):
        harness.cannot("finish atomically")
    return broker


def well_formed(delivery: Delivery) -> Message:
    """The message of a delivery that must not be malformed."""
    assert not isinstance(delivery.message, Malformed), f"claim: a good message is no Malformed: {delivery.message}"
    return delivery.message


def asynchronous(
    test: Callable[Concatenate[Suite, Harness, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Suite, Harness, P], None]:
    """Run a coroutine test in a loop of its own; close what its harness has opened; end it when it hangs."""

    @functools.wraps(test)
    def run(self: Suite, harness: Harness, *args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> None:
            try:
                async with asyncio.timeout(_LONGEST):
                    await test(self, harness, *args, **kwargs)
            finally:
                await harness.close_all()

        asyncio.run(whole())

    return run  # type: ignore[return-value]  # pytest passes the harness by its name


async def gathered(*calls: Awaitable[Any]) -> list[Any]:
    """Results of concurrent calls, in order."""
    return list(await asyncio.gather(*calls))


def child(act: Callable[[], object]) -> int:
    """Run a function in a forked process, which then ends without cleaning up; returns its pid."""
    with warnings.catch_warnings():
        # That a process with threads forks is what is being tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    faulthandler.enable(2)
    try:
        act()
        code = 0
    except BaseException:  # noqa: BLE001 - the exit code tells
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int, timeout: float = 45.0) -> int:
    """The exit code of a child; one that hangs is ended, with its stack on stderr, which shows as ``-SIGABRT``."""
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)


class Background(threading.Thread):
    """Runs a function at once; ``join`` raises what it raised, or that it hangs."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - raised again by join
            self._error = error

    def join(self, timeout: float | None = 45.0) -> None:
        super().join(timeout)
        if self._error is not None:
            raise self._error
        assert not self.is_alive(), f"a thread hangs: {self._act}"
