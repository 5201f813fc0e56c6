"""RabbitMQ: tasks that run for longer than the server lets anybody hold a delivery (ADR 0015)."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.model.settle import Accept, Release
from celeriac.testing.conformance.tools import messages, take
from tests.integration.test_rabbitmq_broker import claimed, opened, run
from tests.servers import RabbitServer, eventually


class TestKeeping:
    def test_a_long_task_changes_hands(self, rabbitmq_server: RabbitServer, rabbitmq_vhost: str) -> None:
        url = rabbitmq_server.url(rabbitmq_vhost)

        async def main() -> None:
            broker, other = await opened(url, owner="me", transport={"consumer_timeout": 0.5}), await opened(url)
            await broker.publish(messages("a"))
            (delivery,) = await claimed(broker, 1)
            entry = broker._intake.held.entries[delivery.token]
            for _ in range(2):  # again and again
                tag = entry.tag
                await asyncio.sleep(0.3)
                assert list(await broker.extend([delivery])) == []
                await eventually(lambda tag=tag: entry.tag != tag, 60)
            assert await take(other) == [], "nobody else has it meanwhile"
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("celeriac.held.me") == (0, 1))
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost)["q"] == (0, 0))
            assert list(await broker.settle([Accept(delivery)])) == []
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("celeriac.held.me") == (0, 0))
            await broker.close()
            await other.close()

        run(main())

    @pytest.mark.parametrize("way", ["death", "release"])
    def test_it_comes_back_to_where_it_came_from(
        self, rabbitmq_server: RabbitServer, rabbitmq_vhost: str, rabbitmq_url: str, way: str
    ) -> None:
        async def main() -> None:
            broker, other = await opened(rabbitmq_url, owner="me", transport={"consumer_timeout": 0.5}), None
            await broker.publish(messages("a"))
            (delivery,) = await claimed(broker, 1)
            entry = broker._intake.held.entries[delivery.token]
            await asyncio.sleep(0.3)
            await broker.extend([delivery])
            await eventually(lambda: entry.tag > 1, 60)
            # Until the first one has ended there are two of it, and the server gives both back.
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("q") == (0, 0))
            if way == "death":
                (await broker._intake.wire()).abort("the test kills it")
            else:
                assert list(await broker.settle([Release(delivery)])) == []
            other = await opened(rabbitmq_url)
            (back,) = await claimed(other, 1)
            assert back.message.id == "a"
            assert back.marks.suspect is (way == "death")
            assert not {name for name in back.message.headers if name.startswith("x-")}, "no signature is broken"  # type: ignore[union-attr]
            await broker.close()
            await other.close()

        run(main())

    def test_what_changed_hands_and_waits_for_its_moment_is_not_forgotten(
        self, rabbitmq_server: RabbitServer, rabbitmq_vhost: str, rabbitmq_url: str
    ) -> None:
        async def main() -> None:
            broker, other = await opened(rabbitmq_url, owner="me", transport={"consumer_timeout": 0.5}), None
            await broker.publish(messages("a"))
            (delivery,) = await claimed(broker, 1)
            await asyncio.sleep(0.3)
            await broker.extend([delivery])
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("celeriac.held.me") == (0, 1))
            await eventually(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("q") == (0, 0))
            held = [delivery]
            while held:  # until one does not come back before the next claim: soon after it nobody claims any more
                await broker.settle([Release(held[0], due=time.time() + 0.2)])
                held = [*await broker.claim(["q"], limit=1, wait=0.0)]
            other = await opened(rabbitmq_url)
            async with asyncio.timeout(60):
                assert [each.message.id for each in await claimed(other, 1)] == ["a"]
            await broker.close()
            await other.close()

        run(main())
