"""Listening on RabbitMQ: whatever ends a subscription, another one is made, once. No sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from celeriac.brokers import subscription
from celeriac.brokers.rabbitmq import bus as module
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions

ADDRESS = parse("amqp://somewhere//", AdapterOptions())[0]


class Wire:
    """A connection and its one channel; ``refuses`` the next consumers."""

    refuses: list[Closed] = []

    def __init__(self) -> None:
        self.address, self.open = ADDRESS, True
        self.tell: Any = None
        self._ended: Any = None

    async def channel(self, on_event: Any, on_closed: Any) -> Wire:
        self.tell, self._ended = on_event, on_closed
        return self

    async def ask(self, number: int, *values: Any) -> list[Any]:
        if self.refuses:
            raise self.refuses.pop()
        return []

    def abort(self, cause: str) -> None:
        if self.open:
            self.open = False
            self._ended(OperationalError(cause))


def listening(body: Callable[[list[Wire], module._Listener], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        wires: list[Wire] = []

        async def connect(addresses: Any) -> Wire:
            await asyncio.sleep(0)
            wires.append(Wire())
            return wires[-1]

        async def run(wire: Any, asking: Any) -> None: ...

        monkeypatch.setattr(module, "connect", connect)
        monkeypatch.setattr(module, "run", run)
        monkeypatch.setattr(subscription, "_RECONNECT_FIRST", 0.0)
        listener = module._Listener((ADDRESS,), "celeryev")
        await listener.subscribed()
        await body(wires, listener)
        listener.close()

    asyncio.run(main())


async def turns() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["cancelled", "lost"])
def test_another_subscription_is_made_once(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    async def body(wires: list[Wire], listener: module._Listener) -> None:
        if way == "lost":
            wires[0].abort("the server is gone")
        else:
            wires[0].tell(Event(1, m.BASIC_CANCEL, b""))
        await turns()
        assert [wire.open for wire in wires] == [False, True]

    listening(body, monkeypatch)


def test_a_consumer_that_is_refused_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wire, "refuses", [Closed(403, "ACCESS_REFUSED - no")])

    async def body(wires: list[Wire], listener: module._Listener) -> None:
        await turns()
        assert [wire.open for wire in wires] == [False, True]
        wires[1].tell(Event(1, m.BASIC_DELIVER, b"", b"", b"heard"))
        assert (await anext(listener.messages())).body == b"heard"

    listening(body, monkeypatch)
