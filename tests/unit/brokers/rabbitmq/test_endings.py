"""How deliveries end on RabbitMQ when what takes their place cannot be sent at once. No sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq import queues as module
from celeriac.brokers.rabbitmq.fields import Properties, decode_header, encode_header
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.holding import Entry, Held
from celeriac.brokers.rabbitmq.messages import changed, header_of, of_content
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.brokers.rabbitmq.queues import RabbitBroker
from celeriac.exceptions import OperationalError
from celeriac.model.settle import DeadLetter, DeadReason, Release, Settlement
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message


class Channel:
    """That of the intake: what is written there."""

    def __init__(self) -> None:
        self.number, self.closed, self.wire = 1, None, self
        self.loop = asyncio.get_running_loop()
        self.heard = self.loop.time() + 1000.0
        self.written: list[tuple[int, list[Any]]] = []

    def send(self, data: bytes) -> None:
        self.written += [(each.number, m.arguments(each.number, each.payload)) for each in Parser().feed(data)]

    async def ask(self, number: int, *values: Any) -> list[Any]:
        return []

    def call(self, number: int, *values: Any) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self.loop.create_future()
        done.set_result(None)
        return done


class Bench:
    """A broker whose outbox says what the test says."""

    def __init__(self) -> None:
        self.broker: Any = RabbitBroker("amqp://somewhere//", AdapterOptions(owner="me", heartbeat=0.0))
        self.broker._is_open = True
        self.intake = self.broker._intake
        self.channel = self.intake.channel = Channel()
        self.held = self.intake.held = Held("me", 1)
        self.sent: list[Outgoing] = []
        self.error: OperationalError | None = None
        self.broker._outbox.publish = self._publish
        self.broker._outbox.declare = self._declare

    async def _publish(self, letters: Sequence[Outgoing]) -> None:
        self.sent += letters
        if self.error is not None:
            raise self.error

    async def _declare(self, name: str, asking: Any) -> None: ...

    def lend(self, tag: int = 1) -> Entry:
        one = message("a")
        header = header_of(one)
        entry = Entry(tag, "q", header, one.body, _delivery(header, one.body), None)
        self.held.add(entry)
        entry.delivery = _delivery(header, one.body, self.held.token(entry))
        self.held.entries[entry.delivery.token] = entry
        return entry

    async def fails(self, settlement: Settlement, *, uncertain: bool) -> None:
        self.error = OperationalError("an alarm")
        self.error.uncertain = uncertain
        with pytest.raises(OperationalError):
            await self.broker.settle([settlement])
        self.error = None


def _delivery(header: bytes, body: bytes, token: str = "") -> Any:
    return of_content(header, body, token=token, queue="q", redelivered=False)


def on_bench(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(Bench())

    asyncio.run(main())


@pytest.mark.parametrize("uncertain", [True, False])
def test_a_copy_that_may_be_on_its_way_is_the_same_at_the_next_try(
    monkeypatch: pytest.MonkeyPatch, uncertain: bool
) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])

    async def body(bench: Bench) -> None:
        entry = bench.lend()
        release = Release(entry.delivery, due=now[0] + 1.2)
        await bench.fails(release, uncertain=uncertain)
        now[0] += 1.0
        assert list(await bench.broker.settle([release])) == []
        if uncertain:
            assert [each.header for each in bench.sent] == [bench.sent[0].header] * 2, "the outbox knows it by that"
            assert bench.intake.waiting("q") == 0, "it does not wait here, too"
        else:
            assert (len(bench.sent), bench.intake.waiting("q")) == (1, 1), "it has not left, and waits here"

    on_bench(body)


def test_a_dead_letter_that_may_be_on_its_way_is_the_same_at_the_next_try() -> None:
    async def body(bench: Bench) -> None:
        entry = bench.lend()
        letter = DeadLetter(delivery=entry.delivery, reason=DeadReason.FAILED, at=5.0)
        await bench.fails(letter, uncertain=True)
        assert list(await bench.broker.settle([letter])) == []
        assert [each.header for each in bench.sent] == [bench.sent[0].header] * 2

    on_bench(body)


def _stamped() -> bytes:
    """A time that AMQP can say and no integer of it can."""
    plain = encode_header(Properties(headers={"own": 7}), 0)
    size = int.from_bytes(plain[14:18], "big") + 4
    return plain[:14] + size.to_bytes(4, "big") + plain[18:].replace(b"I\0\0\0\7", b"T" + (2**63).to_bytes(8, "big"))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (encode_header(Properties(headers={"own": "x" * 131_020}), 0), "its headers would have"),
        (_stamped(), "more than 64 bits"),
    ],
    ids=["large", "time"],
)
def test_what_cannot_be_put_off_is_a_dead_letter(header: bytes, why: str) -> None:
    async def body(bench: Bench) -> None:
        entry = bench.lend()
        entry.header = header
        assert list(await bench.broker.settle([Release(entry.delivery, due=time.time() + 60)])) == []
        (sent,) = bench.sent
        facts = decode_header(sent.header).headers["x-celeriac-dead"]
        assert (sent.key, facts["reason"]) == ("celeriac.dead", "malformed")
        assert why in facts["detail"]

    on_bench(body)


class TestKeeping:
    """Long tasks change hands."""

    def old(self, bench: Bench) -> Entry:
        entry = bench.lend()
        entry.since = -1e9
        return entry

    def copy(self, entry: Entry) -> Event:
        header = changed(entry.header, entry.body, kept=entry.delivery.token)
        return Event(1, m.BASIC_DELIVER, b"", header, entry.body)

    def test_an_alarm_takes_no_lease(self, caplog: pytest.LogCaptureFixture) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)
            bench.error = OperationalError("an alarm")
            assert list(await bench.broker.extend([entry.delivery])) == []
            assert "Cannot keep 1 long tasks in time" in caplog.text
            bench.error = None
            bench.sent.clear()
            assert list(await bench.broker.extend([entry.delivery])) == []
            (sent,) = bench.sent
            assert decode_header(sent.header).headers["celeriac"]["kept"] == entry.delivery.token

        on_bench(body)

    def test_one_whose_sending_was_broken_off_is_sent_again(self) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)

            async def hangs(letters: Sequence[Outgoing]) -> None:
                await asyncio.sleep(60)

            publish, bench.broker._outbox.publish = bench.broker._outbox.publish, hangs
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await bench.broker.extend([entry.delivery])
            bench.broker._outbox.publish = publish
            await bench.broker.extend([entry.delivery])
            assert len(bench.sent) == 1

        on_bench(body)

    def test_one_that_was_lost_meanwhile_gets_no_copy(self) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)

            async def lost(name: str, asking: Any) -> None:
                bench.intake.held = Held("me", 2)  # the channel was closed, and another one made

            bench.broker._outbox.declare = lost
            await bench.broker._keeper.look_after([entry])
            assert bench.sent == []

        on_bench(body)

    def test_a_queue_that_was_deleted_is_made_anew(self) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)
            await bench.broker.extend([entry.delivery])
            (consumer,) = bench.intake._by_tag.values()
            bench.intake._hear(Event(1, m.BASIC_CANCEL, m.method(1, m.BASIC_CANCEL, consumer.tag, True)[7:-1]))
            assert not bench.intake.consuming("celeriac.held.me")
            await bench.broker.extend([entry.delivery])
            assert bench.intake.consuming("celeriac.held.me")
            assert len(bench.sent) == 2, "and another copy is sent"

        on_bench(body)

    @pytest.mark.parametrize("redelivered", [False, True])
    def test_a_copy_that_was_given_back_is_led_back(self, redelivered: bool) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)
            bench.held.entries.clear()  # it has ended, or goes back
            bench.broker._keeper._arrived(self.copy(entry), 7, redelivered)
            ended, back = (m.BASIC_ACK, [7, False]), (m.BASIC_NACK, [7, False, False])
            assert bench.channel.written == [back if redelivered else ended]

        on_bench(body)

    def test_what_changed_hands_goes_back_to_its_own_queue(self) -> None:
        async def body(bench: Bench) -> None:
            entry = self.old(bench)
            bench.broker._keeper._arrived(self.copy(entry), 7, False)
            bench.intake.give_back([entry])
            assert bench.channel.written == [(m.BASIC_ACK, [1, False]), (m.BASIC_NACK, [7, False, False])]

        on_bench(body)
