"""RabbitMQ: what its adapter does where the server's own ways differ from the sentences of the conformance suite."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from celeriac.brokers import rabbitmq
from celeriac.brokers.rabbitmq import delays
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, monotonic
from celeriac.brokers.rabbitmq.fields import decode_header, short
from celeriac.brokers.rabbitmq.frames import publish
from celeriac.brokers.rabbitmq.layout import bind, declare_queue
from celeriac.brokers.rabbitmq.messages import header_of
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, Release
from celeriac.ports import AdapterOptions, BindingFacts, Declaration
from celeriac.testing.conformance.tools import ids, message, messages, take
from tests.servers import RabbitServer, eventually, promptly, wait_until
from tests.servers.lame import lame_host, reaches


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


async def opened(url: str, **options: Any) -> rabbitmq.RabbitBroker:
    broker = rabbitmq.broker(url, AdapterOptions(**{"owner": f"owner-{time.monotonic_ns()}", **options}))
    await broker.open()
    return broker


def ask(url: str, ask: tuple[Any, ...]) -> list[Any]:
    (address,) = parse(url, AdapterOptions())
    connection = Connection(address, monotonic() + 60)
    try:
        return connection.ask(ask, monotonic() + 60)
    finally:
        connection.close()


def ready(url: str, queue: str) -> int:
    publisher = rabbitmq.publisher(url, AdapterOptions())
    try:
        return publisher.depth([queue], timeout=30.0)[queue].ready
    finally:
        publisher.close()


async def claimed(broker: Any, count: int, *queues: str) -> list[Delivery]:
    """So many deliveries, by waiting claims."""
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await broker.claim(queues or ("q",), limit=count - len(taken), wait=5.0)
    return taken


class TestLeases:
    """What a channel held comes back when it is gone."""

    def test_what_a_dead_connection_held_comes_back_redelivered(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            dead, other = await opened(rabbitmq_url), await opened(rabbitmq_url)
            await dead.publish(messages("a", "b"))
            held = await take(dead)
            assert [(each.marks, each.redelivered) for each in held] == [(Marks(), False)] * 2
            assert await take(other) == []
            (await dead._intake.wire()).abort("the test kills it")
            back = await claimed(other, 2)
            assert ids(back) == ["a", "b"], "in their order"
            assert all(each.redelivered and not each.marks.suspect for each in back), "the healthy give back as well"
            assert len(await dead.extend(held)) == 2, "extend tells which were lost with their channel"
            accepts = [Accept(each) for each in held]
            assert list(await dead.settle(accepts)) == accepts, "and their ends are refused"
            assert await dead.orphans("anybody") == ()
            await dead.close()
            await other.close()

        run(main())

    def test_suspects_are_lent_one_by_one(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker, other = await opened(rabbitmq_url), await opened(rabbitmq_url)
            await broker.publish(messages("a", "b", "c"))
            suspected = [Release(each, marks=Marks(suspect=True)) for each in await take(broker)]
            assert not await broker.settle(suspected)
            await broker.close()
            for name in "abc":
                (one,) = await other.claim(["q"], limit=10, wait=60.0)
                assert ids([one]) == [name]
            await other.close()

        run(main())

    def test_what_this_process_gives_back_is_no_suspect(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)
            await broker.publish(messages("a", "b"))
            for _ in range(3):
                held = await claimed(broker, 2)
                assert [(each.message.id, each.marks, each.redelivered) for each in held] == [
                    ("a", Marks(), False),
                    ("b", Marks(), False),
                ]
                await broker.settle([Release(each) for each in held])
            await broker.close()

        run(main())

    def test_what_nobody_claims_goes_back(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker, other = await opened(rabbitmq_url), await opened(rabbitmq_url)
            await other.publish(messages("a"))
            await broker.claim(["q"], limit=200, wait=5.0)  # its consumer may take more for a moment
            await other.publish(messages("b", "c"))
            assert ids(await claimed(other, 2)) == ["b", "c"]
            await broker.close()
            await other.close()

        run(main())

    def test_a_token_names_owner_channel_tag_and_task(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url, owner="me")
            await broker.publish(messages("x:y"))
            (delivery,) = await take(broker)
            owner, generation, tag, task = delivery.token.split(":", 3)
            assert (owner, tag, task) == ("me", "1", "x:y")
            assert int(generation) > 0
            await broker.close()

        run(main())

    def test_a_quorum_queue_counts_and_nothing_is_dropped(self, rabbitmq_url: str) -> None:
        def declared(name: str) -> Declaration:
            return Declaration(name=name, arguments={"x-queue-type": "quorum", "x-delivery-limit": 5})

        async def main() -> None:
            broker = await opened(rabbitmq_url, declarations=declared)
            await broker.publish(messages("a"))
            for _ in range(12):
                (delivery,) = await claimed(broker, 1)
                await broker.settle([Release(delivery)])
            (delivery,) = await claimed(broker, 1)
            assert delivery.message.id == "a", "given back more often than its limit, and still there"
            await broker.settle([Accept(delivery)])
            await broker.close()

        run(main())


class TestStrangers:
    def test_a_routing_key_that_is_no_text_costs_itself_only(self, rabbitmq_url: str) -> None:
        """A fanout, topic or headers exchange takes it, and no worker could connect any more."""
        (address,) = parse(rabbitmq_url, AdapterOptions())
        connection, deadline = Connection(address, monotonic() + 5), monotonic() + 5
        connection.run(declare_queue("q", True, False, False, {}), deadline)
        connection.ask(bind("q", "amq.fanout", ""), deadline)
        one = message("a")
        frames = publish(1, short("amq.fanout"), b"\x02\xff\xfe", header_of(one), one.body, connection.frame_max)
        assert connection.publish([frames], deadline) == []
        connection.close()

        async def main() -> None:
            broker = await opened(rabbitmq_url)
            await broker.publish(messages("b"))
            assert ids(await claimed(broker, 2)) == ["a", "b"]
            await broker.close()

        run(main())


class TestPriorities:
    def test_the_higher_first_within_a_queue_that_has_them(self, rabbitmq_url: str) -> None:
        def declared(name: str) -> Declaration:
            return Declaration(name=name, arguments={"x-max-priority": 10})

        async def main() -> None:
            broker = await opened(rabbitmq_url, declarations=declared)
            await broker.publish([message("low", priority=1), message("high", priority=9), message("mid", priority=5)])
            assert ids(await take(broker)) == ["high", "mid", "low"]
            await broker.close()

        run(main())


class TestDelays:
    def test_a_delay_is_kept_by_the_server_and_survives_its_sender(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            sender = await opened(rabbitmq_url)
            await sender.publish([message("first", "other", due=time.time() + 60)])  # makes what delays: once a server
            await sender.close()

            async def delayed() -> None:
                sender, due = await opened(rabbitmq_url), time.time() + 2.4
                await sender.publish([message("later", "with.dots", due=due), message("now", "with.dots")])
                await sender.close()
                broker = await opened(rabbitmq_url)
                (now,) = await claimed(broker, 1, "with.dots")
                (later,) = await claimed(broker, 1, "with.dots")
                assert ids([now, later]) == ["now", "later"]
                assert due <= time.time()
                await broker.settle([Accept(now), Accept(later)])
                await broker.close()

            await promptly(3.5, delayed)

        run(main())

    def test_a_queue_gets_its_own_only(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)
            names = ["mail", "foo.mail", "celery", "#.mail", "*", "a" * 180]
            await broker.publish([message(name, name, due=time.time() + 1.2) for name in names])
            for name in names:
                (one,) = await claimed(broker, 1, name)
                assert one.message.id == name
            await asyncio.sleep(0.2)
            assert await take(broker, *names) == []
            await broker.close()

        run(main())

    @pytest.mark.parametrize("kind", ["quorum", "classic"])
    def test_a_release_to_a_later_moment(self, rabbitmq_url: str, kind: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url, delay_queue_type=kind)
            await broker.publish([message("first", "other", due=time.time() + 60)])

            async def released() -> None:
                await broker.publish(messages("a"))
                (delivery,) = await claimed(broker, 1)
                due = time.time() + 1.6
                await broker.settle([Release(delivery, due=due, marks=Marks(crashes=1))])
                assert ready(rabbitmq_url, "q") == 0 or time.time() >= due
                (delivery,) = await claimed(broker, 1)
                assert due <= time.time()
                assert delivery.marks == Marks(crashes=1)
                await broker.settle([Accept(delivery)])

            await promptly(2.7, released)  # whole seconds by the server, the rest here
            await broker.close()

        run(main())

    def test_what_is_delayed_finds_a_queue_that_was_deleted_meanwhile(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)
            await broker.publish([message("first", due=time.time() + 1.1)])
            assert ids(await claimed(broker, 1)) == ["first"]
            waiting = asyncio.ensure_future(claimed(broker, 1))
            consumers = broker._intake._consumers
            await eventually(lambda: "q" in consumers and consumers["q"].began, 60)
            await asyncio.to_thread(ask, rabbitmq_url, (m.QUEUE_DELETE, 0, "q", False, False, False))
            await broker.publish([message("second", due=time.time() + 1.1)])
            async with asyncio.timeout(60):
                assert ids(await waiting) == ["second"]
            await broker.close()

        run(main())

    def test_what_was_deleted_is_declared_anew(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)
            await broker.publish([message("first", due=time.time() + 60)])
            await asyncio.to_thread(ask, rabbitmq_url, (m.EXCHANGE_DELETE, 0, delays.entrance(), False, False))
            with pytest.raises(OperationalError, match="it is declared anew at the next try"):
                await broker.publish([message("second", due=time.time() + 60)])
            await broker.publish([message("second", due=time.time() + 60)])
            await broker.close()

        run(main())

    def test_what_waits_here_goes_back_when_nobody_claims(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker, other = await opened(rabbitmq_url), await opened(rabbitmq_url)
            await broker.publish(messages("a"))
            (delivery,) = await claimed(broker, 1)
            await asyncio.sleep(0.3)  # the worker is busy
            await broker.settle([Release(delivery, due=time.time() + 0.2)])
            async with asyncio.timeout(60):
                assert ids(await claimed(other, 1)) == ["a"]
            await broker.close()
            await other.close()

        run(main())

    def test_a_short_wait_is_waited_for_here(self, rabbitmq_url: str) -> None:
        async def main() -> None:
            broker = await opened(rabbitmq_url)

            async def waited() -> None:
                await broker.publish(messages("a"))
                (delivery,) = await claimed(broker, 1)
                due = time.time() + 0.4
                await broker.settle([Release(delivery, due=due)])
                (again,) = await claimed(broker, 1)
                assert due <= time.time()
                assert again.token != delivery.token
                assert list(await broker.settle([Accept(delivery)])) == [Accept(delivery)], "the old token is over"
                assert list(await broker.settle([Accept(again)])) == []

            await promptly(1.0, waited)
            await broker.close()

        run(main())


class TestDeclarations:
    def test_one_clear_line_where_the_server_has_another_queue(
        self, rabbitmq_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        (address,) = parse(rabbitmq_url, AdapterOptions())
        connection = Connection(address, monotonic() + 5)
        connection.run(declare_queue("other", True, False, False, {"x-max-priority": 5}), monotonic() + 5)
        connection.close()

        async def main() -> None:
            with caplog.at_level(logging.WARNING, logger="celeriac.brokers.rabbitmq"):
                broker = await opened(rabbitmq_url)
                await broker.publish(messages("a", queue="other"))
                assert ids(await take(broker, "other")) == ["a"], "it is used as it is"
                await broker.close()

        run(main())
        (line,) = {record.message for record in caplog.records}
        assert "queue 'other'" in line
        assert "x-max-priority" in line
        assert "correct the settings, or drain and delete it" in line

    def test_a_deleted_queue_is_declared_anew(self, rabbitmq_url: str) -> None:
        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions())
        publisher.publish([message("a")], timeout=30.0)
        ask(rabbitmq_url, (m.QUEUE_DELETE, 0, "q", False, False, False))
        publisher.publish([message("b")], timeout=30.0)
        assert ready(rabbitmq_url, "q") == 1, "what no queue took is sent once more"
        publisher.close()

        async def main() -> None:
            broker = await opened(rabbitmq_url)
            waiting = asyncio.ensure_future(claimed(broker, 2))
            await eventually(lambda: ready(rabbitmq_url, "q") == 0)
            ask(rabbitmq_url, (m.QUEUE_DELETE, 0, "q", False, False, False))
            other = await opened(rabbitmq_url)
            await other.publish(messages("c"))
            async with asyncio.timeout(60):
                assert "c" in ids(await waiting)
            await broker.close()
            await other.close()

        run(main())

    def test_what_no_queue_takes_is_an_error(self, rabbitmq_url: str) -> None:
        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions())
        with pytest.raises(OperationalError, match=r"no queue for exchange 'amq\.direct' with routing key 'nobody'"):
            publisher.publish(
                [message("a", queue="", exchange="amq.direct", routing_key="nobody")],
                timeout=5,
            )
        publisher.publish([message("b")], timeout=30.0)
        publisher.close()

        async def main() -> None:
            broker = await opened(rabbitmq_url)
            with pytest.raises(OperationalError, match="no queue for"):
                await broker.publish([message("a", queue="", exchange="amq.direct", routing_key="nobody")])
            await broker.publish(messages("c"))
            assert ids(await take(broker)) == ["b", "c"]
            await broker.close()

        run(main())

    def test_a_full_queue_refuses(self, rabbitmq_url: str) -> None:
        def declared(name: str) -> Declaration:
            return Declaration(name=name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})

        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions(declarations=declared))
        publisher.publish([message("a")], timeout=30.0)
        with pytest.raises(OperationalError, match="refused"):
            publisher.publish(messages("b", "c"), timeout=5)
        publisher.close()

    def test_changes_of_a_ledger_are_refused_with_the_way_out(self, rabbitmq_url: str) -> None:
        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions())
        assert publisher.publish_if(message("a"), (), timeout=30.0) is None
        with pytest.raises(ImproperlyConfigured, match="ledger_url"):
            publisher.publish_if(message("b"), [Change(key="k", expected=None, value=b"v")], timeout=5)
        assert ready(rabbitmq_url, "q") == 1
        publisher.close()

    def test_no_message_has_an_expiration(self, rabbitmq_url: str) -> None:
        publisher = rabbitmq.publisher(rabbitmq_url, AdapterOptions())
        publisher.publish([message("a", expires=time.time() + 1)], timeout=30.0)
        publisher.close()
        (address,) = parse(rabbitmq_url, AdapterOptions())
        connection = Connection(address, monotonic() + 5)
        event = connection.event((m.BASIC_GET, 0, "q", True), monotonic() + 5)
        connection.close()
        flags = int.from_bytes(event.header[12:14], "big")
        assert not flags & 0x0100
        assert decode_header(event.header).delivery_mode == 2


class TestPermissions:
    """The sets of docs/how-to/rabbitmq.md."""

    @pytest.mark.parametrize("configure", ["^(celery|emails)$", "^$"])
    def test_a_producer(self, rabbitmq_server: RabbitServer, rabbitmq_vhost: str, configure: str) -> None:
        def declared(name: str) -> Declaration:
            return Declaration(name=name, bindings=(BindingFacts(exchange=name, routing_key=name),))

        worker = rabbitmq.publisher(rabbitmq_server.url(rabbitmq_vhost), AdapterOptions(declarations=declared))
        worker.publish([message("a", "celery")], timeout=30.0)
        worker.close()
        user = f"producer{abs(hash(configure))}"
        write, read = "^(amq\\.default|celery|emails)$", "^(celery|emails)$"
        rabbitmq_server.add_user(user, rabbitmq_vhost, configure, write, read)
        url = rabbitmq_server.url(rabbitmq_vhost, user=user, password="secret")
        publisher = rabbitmq.publisher(url, AdapterOptions(declarations=declared))
        publisher.publish([message("b", "celery")], timeout=30.0)
        with pytest.raises(OperationalError, match=r"ACCESS_REFUSED|NOT_FOUND"):
            publisher.publish([message("c", "other")], timeout=5)
        publisher.publish([message("d", "celery")], timeout=30.0)
        publisher.close()
        assert ready(rabbitmq_server.url(rabbitmq_vhost), "celery") == 3


def test_a_delivery_counts_as_held_until_it_is_settled(rabbitmq_server: RabbitServer, rabbitmq_vhost: str) -> None:
    url = rabbitmq_server.url(rabbitmq_vhost)

    async def main() -> None:
        broker = await opened(url)
        await broker.publish(messages(*map(str, range(50))))
        held: Sequence[Delivery] = await claimed(broker, 50)
        wait_until(lambda: rabbitmq_server.queues(rabbitmq_vhost).get("q") == (0, 50))
        await broker.settle([Accept(each) for each in held[::2]])
        assert rabbitmq_server.queues(rabbitmq_vhost)["q"] == (0, 25)
        await broker.settle([Accept(each) for each in held[1::2]])
        assert rabbitmq_server.queues(rabbitmq_vhost)["q"] == (0, 0)
        await broker.close()

    run(main())


def test_a_host_whose_first_address_is_silent(
    rabbitmq_server: RabbitServer, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lame_host(rabbitmq_server.port, monkeypatch) as host:
        reaches(rabbitmq, rabbitmq_url.replace("127.0.0.1", host))
