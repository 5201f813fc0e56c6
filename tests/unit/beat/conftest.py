"""A fleet of schedulers in one thread: an app on memory://, virtual time, and servers that can be taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celery
from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.state import State, state_key
from celeriac.beat.written import Written
from celeriac.client import resolver
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message

START = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.time = START.timestamp()

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - START.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class Killed(Exception):
    """The scheduler dies at this point."""


class Port:
    """A publisher or ledger that fails, or kills, as a test wants: ``before`` and ``after`` are called around calls."""

    def __init__(self, real: Any, name: str) -> None:
        self._real = real
        self.name = name
        self.calls: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.fails_after: dict[str, BaseException] = {}

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._real, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(method)
            if method in self.fails:
                raise self.fails[method]
            answer = real(*args, **kwargs)
            if method in self.fails_after:
                raise self.fails_after.pop(method)
            return answer

        return call


class Publisher(Port):
    """Of one server, or in steps."""

    def __init__(self, real: Any, stepwise: bool) -> None:
        super().__init__(real, "publisher")
        self.stepwise = stepwise

    def rules(self, prefix: str, *, timeout: float) -> Any: ...

    def set_rules(self, changes: Any, *, timeout: float) -> Any: ...


def away(*, uncertain: bool = False) -> OperationalError:
    error = OperationalError("nobody answers")
    error.uncertain = uncertain
    return error


class Fleet:
    """What the tests drive."""

    def __init__(self, app: Celery, name: str) -> None:
        self.app = app
        self.clock = Clock()
        self.url = f"memory://{name}"
        self._memory: Any = resolver.adapter(self.url)
        self.server = self._memory.server(self.url, self.clock)
        self.options = resolver.adapter_options(app.conf)
        self.stepwise = False

    def scheduler(self, **more: Any) -> SharedScheduler:
        publisher: Any = Publisher(self._memory.publisher(self.url, self.options), self.stepwise)
        ledger: Any = Port(self._memory.ledger(self.url, self.options), "ledger")
        more.setdefault("book", Written(self.app))
        return SharedScheduler(self.app, publisher=publisher, ledger=ledger, wall=self.clock.now, **more)

    def add(self, name: str, schedule: Any, **more: Any) -> None:
        entry = {"task": "tasks.report", "schedule": schedule, **more}
        self.app.conf.beat_schedule = {**(self.app.conf.beat_schedule or {}), name: entry}

    def sent(self) -> list[Message]:
        """Take all messages that were sent since."""
        import asyncio

        async def claim() -> Sequence[Any]:
            broker = resolver.broker(self.url, self.options)
            await broker.open()
            found = [d for _ in range(40) for d in await broker.claim(["celery"], limit=1000, wait=0)]
            from celeriac.model.settle import Accept

            await broker.settle([Accept(d) for d in found])
            await broker.close()
            return found

        return [delivery.message for delivery in asyncio.run(claim())]

    def run(self, seconds: float, *schedulers: SharedScheduler) -> None:
        """Let time pass as the services of these schedulers would."""
        end = self.clock.time + seconds
        looks = dict.fromkeys(schedulers, self.clock.time)
        while True:
            scheduler = min(looks, key=lambda each: looks[each])
            if looks[scheduler] > end:
                break
            self.clock.time = max(self.clock.time, looks[scheduler])
            looks[scheduler] = self.clock.time + scheduler.tick()
        self.clock.time = end

    def state(self, name: str) -> State:
        state = State.decode(self.server.read_ledger([state_key(name)])[0])
        assert state is not None
        return state

    def lock(self, key: str) -> bytes | None:
        (value,) = self.server.read_ledger([key])
        return value  # type: ignore[no-any-return]

    def change(self, key: str, value: bytes | None) -> None:
        self.server.change_ledger([Change(key, value)])


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    name = f"beat-{request.node.name}"
    app = Celery("beat", broker=f"memory://{abs(hash(name))}", set_as_current=False)

    @app.task(name="tasks.report")
    def report(*args: Any, **kwargs: Any) -> None: ...

    made = Fleet(app, str(abs(hash(name))))
    yield made
    resolver.adapter(made.url).drop(made.url)  # type: ignore[attr-defined]


def headers(messages: Sequence[Message]) -> list[Mapping[str, Any]]:
    return [message.headers for message in messages]
