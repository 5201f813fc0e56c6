"""RabbitMQ: dead letters in a queue that can only be taken from its head."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.brokers import rabbitmq
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, monotonic
from celeriac.brokers.rabbitmq.fields import decode_header
from celeriac.brokers.rabbitmq.layout import DEAD
from celeriac.exceptions import OperationalError
from celeriac.model.dead import ALL, Replay
from celeriac.model.message import Malformed
from celeriac.model.settle import DeadLetter, DeadReason
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message, messages
from tests.integration.test_rabbitmq_broker import claimed, opened, ready, run


class TestDeadLetters:
    def fill(self, url: str, *names: str, queue: str = "q") -> None:
        async def main() -> None:
            broker = await opened(url)
            await broker.publish(messages(*names, queue=queue))
            for number, delivery in enumerate(await claimed(broker, len(names), queue)):
                await broker.settle(
                    [
                        DeadLetter(
                            delivery=delivery, reason=DeadReason.FAILED, at=1_700_000_000.0 + number, worker="w1@h"
                        )
                    ]
                )
            await broker.close()

        run(main())

    def test_it_lies_in_a_real_queue_and_tells_everything(self, rabbitmq_url: str) -> None:
        self.fill(rabbitmq_url, "a")
        (address,) = parse(rabbitmq_url, AdapterOptions())
        connection = Connection(address, monotonic() + 5)
        event = connection.event((m.BASIC_GET, 0, DEAD, True), monotonic() + 5)
        connection.close()
        properties = decode_header(event.header)
        facts = properties.headers["x-celeriac-dead"]
        assert (facts["reason"], facts["worker"], facts["queue"], facts["attempts"]) == ("failed", "w1@h", "q", 1)
        assert properties.headers["task"] == "conformance.task"
        assert properties.delivery_mode == 2

    def test_pages_replays_and_drops(self, rabbitmq_url: str) -> None:
        self.fill(rabbitmq_url, "a", "b", "c", "d")
        letters = rabbitmq.dead_letters(rabbitmq_url, AdapterOptions())
        first = letters.page(ALL, limit=3, timeout=60)
        assert [each.id for each in first.records] == ["d", "c", "b"]
        second = letters.page(ALL, limit=3, after=first.after, timeout=60)
        assert ([each.id for each in second.records], second.after) == (["a"], "")
        keys = {each.id: each.key for each in (*first.records, *second.records)}
        assert letters.drop([keys["a"], "unknown"], timeout=60) == 1
        stayed = letters.replay(
            [Replay(key=keys["b"], message=message("b")), Replay(key="unknown", message=message("x"))], timeout=60
        )
        assert [(each.key, each.gone) for each in stayed] == [("unknown", True)]
        assert ready(rabbitmq_url, "q") == 1
        assert [each.id for each in letters.page(ALL, limit=9, timeout=60).records] == ["d", "c"], "in their order"
        (got,) = letters.get([keys["c"]], timeout=60)
        assert got is not None
        assert got.id == "c"
        letters.close()

    def test_one_that_no_queue_takes_keeps_no_others_from_going(self, rabbitmq_url: str) -> None:
        self.fill(rabbitmq_url, "a", "b")
        letters = rabbitmq.dead_letters(rabbitmq_url, AdapterOptions())
        keys = {each.id: each.key for each in letters.page(ALL, limit=3, timeout=60).records}
        astray = message("b", exchange="amq.direct", routing_key="nowhere")
        with pytest.raises(OperationalError, match=r"no queue for exchange .* with routing key 'nowhere'") as caught:
            letters.replay(
                [Replay(key=keys["a"], message=message("a")), Replay(key=keys["b"], message=astray)], timeout=60
            )
        assert caught.value.uncertain, "one is sent"
        assert [each.id for each in letters.page(ALL, limit=9, timeout=60).records] == ["b"]
        assert ready(rabbitmq_url, "q") == 1
        letters.close()

    def test_who_looks_meanwhile_waits(self, rabbitmq_url: str) -> None:
        self.fill(rabbitmq_url, "a", "b")

        async def main() -> None:
            brokers = [await opened(rabbitmq_url) for _ in range(4)]
            found = await asyncio.gather(*(broker.dead() for broker in brokers))
            assert [[each.id for each in letters] for letters in found] == [["b", "a"]] * 4
            for broker in brokers:
                await broker.close()

        run(main())

    def test_bytes_that_are_no_message_are_kept(self, rabbitmq_url: str) -> None:
        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions())
        publisher.publish([message("a", headers={"task": 5}, body=b"\xff\x00")], timeout=30.0)
        publisher.close()

        async def main() -> None:
            broker = await opened(rabbitmq_url)
            (delivery,) = await claimed(broker, 1)
            assert isinstance(delivery.message, Malformed)
            assert delivery.message.raw == b"\xff\x00"
            await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.MALFORMED, detail="why")])
            (record,) = await broker.dead()
            assert (record.raw, record.reason, record.detail) == (b"\xff\x00", "malformed", "why")
            await broker.close()

        run(main())

    def test_a_letter_with_large_headers_fits(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)
            await broker.publish([message("a", headers={"own": "x" * 100_000})])
            (delivery,) = await claimed(broker, 1)
            await broker.settle(
                [DeadLetter(delivery=delivery, reason=DeadReason.FAILED, traceback="line\n" * 20_000, detail="why")]
            )
            (record,) = await broker.dead()
            assert (record.id, record.detail, record.traceback[-5:]) == ("a", "why", "line\n")
            with pytest.raises(ValueError, match=r"headers of conformance\.task have"):
                await broker.publish([message("b", headers={"own": "x" * 130_000})])
            await broker.close()

        run(main())

    def test_the_server_drops_the_oldest(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url, dead_letter_limit=2)
            await broker.publish(messages("a", "b", "c"))
            for delivery in await claimed(broker, 3):
                await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.FAILED, at=time.time())])
            assert [each.id for each in await broker.dead()] == ["c", "b"]
            await broker.close()

        run(main())

    def test_the_server_drops_what_has_expired(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url, dead_letter_expires=1.0)
            await broker.publish(messages("a"))
            (delivery,) = await claimed(broker, 1)
            began = time.monotonic()
            await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.FAILED, at=time.time())])
            async with asyncio.timeout(60):
                while found := list(await broker.dead()):
                    assert [each.id for each in found] == ["a"]
                    await asyncio.sleep(0.05)
            assert time.monotonic() - began >= 1.0
            await broker.close()

        run(main())
