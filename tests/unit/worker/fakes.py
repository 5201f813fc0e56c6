"""A broker, a store and an executor that only remember what was asked of them; and what to ask them about."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.codec.body import encode_body
from celeriac.exceptions import OperationalError
from celeriac.model.message import NO_MARKS, Delivery, Malformed, Marks, Message
from celeriac.model.settle import Accept, Completion, Settlement, StoredResult, Verdict
from celeriac.ports import Traits

_numbers = itertools.count(1)


def message(task: str = "t", *args: Any, embed: dict[str, Any] | None = None, **fields: Any) -> Message:
    """A message for ``task(*args)``; ``kwargs`` and ``headers`` are taken from ``fields``."""
    kwargs, headers = fields.pop("kwargs", {}), fields.pop("headers", {})
    task_id = fields.pop("id", None) or f"id-{next(_numbers)}"
    body = fields.pop("body", None)
    if body is None:
        body = encode_body(args, kwargs, embed).body
    return Message(id=task_id, task=task, headers={"task": task, "id": task_id, **headers}, body=body, **fields)


def delivery(task: str = "t", *args: Any, **fields: Any) -> Delivery:
    """A delivery of ``message(task, *args)`` under a token of its own."""
    token = fields.pop("token", None) or f"owner:{next(_numbers)}"
    marks: Marks = fields.pop("marks", NO_MARKS)
    back = {name: fields.pop(name, False) for name in ("redelivered", "returned")}
    return Delivery(message=message(task, *args, **fields), token=token, queue="celery", marks=marks, **back)


def malformed(**fields: Any) -> Delivery:
    """A delivery of bytes that are no message."""
    bad = Malformed(reason="not JSON", raw=b"x", **fields)
    return Delivery(message=bad, token=f"owner:{next(_numbers)}", queue="celery", raw=b"x")


def tokens(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.token for each in deliveries]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it is so; an error when it never is."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("that never happened")


def done(each: Delivery, *, publish: Sequence[Message] = (), result: bytes | None = None) -> Completion:
    """A success."""
    stored = None if result is None else StoredResult(each.message.id, result, True)
    return Completion(settlement=Accept(each), publish=publish, result=stored)


class Faults:
    """Errors that calls meet, by name of the method: the first call meets the first of its list."""

    def __init__(self) -> None:
        self.by_call: dict[str, deque[BaseException | None]] = {}

    def plan(self, call: str, *errors: BaseException | None) -> None:
        self.by_call.setdefault(call, deque()).extend(errors)

    def away(self, call: str, times: int = 1) -> None:
        self.plan(call, *[OperationalError("away")] * times)

    def meet(self, call: str) -> None:
        planned = self.by_call.get(call)
        error = planned.popleft() if planned else None
        if error is not None:
            raise error


class FakeBroker:
    """Logs calls as ``(name, what)``; settles everything but the tokens in ``gone``."""

    def __init__(self, log: list[tuple[str, Any]] | None = None, server: str = "broker") -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("fake", server))
        self.log: list[tuple[str, Any]] = [] if log is None else log
        self.faults = Faults()
        self.gone: set[str] = set()
        self.claim_with: Callable[[int, float], Any] | None = None
        self.orphaned: list[Delivery] = []

    async def open(self) -> None:
        self.log.append(("open", None))
        self.faults.meet("open")

    async def close(self) -> None:
        self.log.append(("close", None))

    async def declare(self, queues: Sequence[str]) -> None:
        self.log.append(("declare", list(queues)))
        self.faults.meet("declare")

    async def publish(self, messages: Sequence[Message]) -> None:
        self.faults.meet("publish")
        self.log.append(("publish", [each.id for each in messages]))

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        self.log.append(("claim", (list(queues), limit, wait)))
        self.faults.meet("claim")
        assert self.claim_with is not None
        claimed: Sequence[Delivery] = await self.claim_with(limit, wait)
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        self.faults.meet("settle")
        self.log.append(("settle", [each.delivery.token for each in settlements]))
        return [each for each in settlements if each.delivery.token in self.gone]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        self.faults.meet("extend")
        self.log.append(("extend", tokens(deliveries)))
        return [each for each in deliveries if each.token in self.gone]

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        self.log.append(("orphans", owner))
        self.faults.meet("orphans")
        return self.orphaned


class UnifiedBroker(FakeBroker):
    """One that finishes; ``verdicts`` by token, DONE for all others."""

    def __init__(self, log: list[tuple[str, Any]] | None = None, server: str = "broker") -> None:
        super().__init__(log, server)
        self.verdicts: dict[str, Verdict] = {}

    async def finish(self, completions: Sequence[Completion]) -> Sequence[Verdict]:
        self.faults.meet("finish")
        asked = [each.settlement.delivery.token for each in completions]
        self.log.append(("finish", asked))
        return [self.verdicts.get(token, Verdict.DONE) for token in asked]


class FakeStore:
    """Logs what is put; answers ``get`` from ``records``."""

    def __init__(self, log: list[tuple[str, Any]] | None = None, server: str = "store") -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("fake", server))
        self.log: list[tuple[str, Any]] = [] if log is None else log
        self.faults = Faults()
        self.records: dict[str, bytes] = {}

    async def open(self) -> None:
        self.log.append(("open store", None))
        self.faults.meet("open")

    async def close(self) -> None:
        self.log.append(("close store", None))

    async def put(self, results: Sequence[StoredResult]) -> None:
        self.faults.meet("put")
        self.log.append(("put", [each.body for each in results]))

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        self.faults.meet("get")
        self.log.append(("get", list(ids)))
        return [self.records.get(each) for each in ids]

    async def forget(self, ids: Sequence[str]) -> None:
        raise NotImplementedError

    async def sweep(self) -> int:
        return 0


class FakeExecutor:
    """Runs nothing: ``start(n, at)`` moves deliveries from waiting to running, ``finish()`` ends them."""

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.inbox: list[Delivery] = []
        self.running: list[tuple[Delivery, float]] = []

    def feed(self, batch: Sequence[Delivery]) -> None:
        self.inbox.extend(batch)

    def recall(self) -> list[Delivery]:
        back, self.inbox = self.inbox, []
        return back

    def active(self) -> list[tuple[Delivery, float]]:
        return list(self.running)

    def waiting(self) -> int:
        return len(self.inbox)

    def tick(self, now: float) -> None:
        pass

    def cancel(self, token: str) -> bool:
        return False

    def stop(self) -> None:
        pass

    def start(self, count: int, at: float) -> None:
        for _ in range(count):
            self.running.append((self.inbox.pop(0), at))

    def finish(self) -> list[Delivery]:
        over, self.running = [each for each, _ in self.running], []
        return over


class Steady:
    """A clock whose sleeps let others run."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
