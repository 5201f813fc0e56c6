"""Rules on a real Redis: what only Redis can do wrong. The port itself is tested by tests/conformance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.brokers import redis
from celeriac.brokers.redis import rules as arguments
from celeriac.exceptions import OperationalError
from celeriac.model.rules import RuleChange
from celeriac.ports import AdapterOptions, Publisher
from tests.integration.test_redis_broker import message, opened
from tests.proxy import Proxy
from tests.servers import RedisServer

MakeRedis = Callable[..., RedisServer]


def _fill(publisher: Publisher) -> None:
    for _ in range(10_000):
        publisher.publish([message()] * 200, timeout=30.0)


def _set(*keys: str, expires: float | None = None) -> list[RuleChange]:
    return [RuleChange(key, b"v", expires) for key in keys]


def test_dropped_rules_are_forgotten(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "TOMBSTONE", 0.2)

    async def run() -> None:
        async with opened(redis_url) as broker:
            before = await broker.set_rules(_set("a", "b"))
            await broker.set_rules([RuleChange("a", None)])
            assert [rule.value for rule in (await broker.rules(before)).rules] == [None]
            await asyncio.sleep(0.3)
            await broker.set_rules(_set("c"))
            read = await broker.rules(before)
            assert ([rule.key for rule in read.rules], read.complete) == (["b", "c"], True)
            assert not (await broker.rules(read.epoch)).complete

    asyncio.run(run())


def test_nothing_is_left_of_what_is_over(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url) as broker:
            await broker.set_rules(_set(*(f"revoke:{number}" for number in range(2000)), expires=0.1))
            await asyncio.sleep(0.2)
            for _ in range(30):
                await broker.set_rules(_set("a"))
        assert redis_server.command("HLEN", "celeriac:rules") == 1
        assert redis_server.command("ZCARD", "celeriac:rules:epochs") == 1
        assert redis_server.command("ZCARD", "celeriac:rules:ends") == 0

    asyncio.run(run())


def test_only_the_newest_revoked_ids_are_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "RULES_LIMIT", 3)

    async def run() -> None:
        async with opened(redis_url) as broker:
            await broker.set_rules(_set("pause:q", *(f"revoke:{number}" for number in range(1500))))
            keys = [rule.key for rule in (await broker.rules()).rules]
            assert keys == ["pause:q", "revoke:1497", "revoke:1498", "revoke:1499"]

    asyncio.run(run())


def test_a_server_that_lost_its_data_repeats_no_epoch(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url) as broker:
            before = await broker.set_rules(_set("revoke:a"))
            redis_server.command("FLUSHALL")
            await broker.claim(["q"], limit=1, wait=0)
            assert broker.epoch == 0
            read = await broker.rules(before)
            assert (read.epoch, list(read.rules), read.complete) == (0, [], True)
            await asyncio.sleep(0.002)
            assert await broker.set_rules(_set("revoke:b")) > before

    asyncio.run(run())


def test_rules_can_be_written_when_memory_is_full(make_redis: MakeRedis) -> None:
    """It is when tasks must be stopped."""
    server = make_redis(maxmemory="3mb")
    publisher = redis.publisher(server.url(), AdapterOptions())
    try:
        with pytest.raises(OperationalError):
            _fill(publisher)
        assert publisher.set_rules(_set("pause:q"), timeout=30.0) > 0
        assert [rule.key for rule in publisher.rules("pause:", timeout=30.0).rules] == ["pause:q"]
    finally:
        publisher.close()
        server.close()


def test_a_key_of_another_type_changes_nothing(redis_server: RedisServer, redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url) as broker:
            redis_server.command("SET", "celeriac:rules:ends", "x")
            with pytest.raises(OperationalError, match="WRONGTYPE"):
                await broker.set_rules(_set("a"))
            assert redis_server.command("EXISTS", "celeriac:rules", "celeriac:rules:epoch") == 0

    asyncio.run(run())


def test_a_claim_whose_answer_was_lost_tells_the_epoch(
    redis_server: RedisServer, redis_url: str, redis_proxy: Proxy
) -> None:
    """What it took comes with the next claim, and so must the rules that were written before it was taken."""

    async def run() -> None:
        async with opened(redis_url, "writer") as writer, opened(redis_server.url(port=redis_proxy.port)) as broker:
            await broker.claim(["q"], limit=1, wait=0)
            epoch = await writer.set_rules(_set("revoke:a"))
            await writer.publish([message("a")])
            await asyncio.to_thread(redis_proxy.blackhole, True)
            claiming = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=0))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(redis_proxy.cut)
            await asyncio.to_thread(redis_proxy.blackhole, False)
            with pytest.raises(OperationalError):
                await claiming
            taken: list[Any] = []
            until = time.monotonic() + 10
            while not taken and time.monotonic() < until:
                try:
                    taken += await broker.claim(["q"], limit=1, wait=0.1)
                except OperationalError:
                    continue
            assert [each.message.id for each in taken] == ["a"]
            assert broker.epoch == epoch

    asyncio.run(run())


def test_a_cancelled_claim_tells_the_epoch(redis_url: str) -> None:
    async def run() -> None:
        async with opened(redis_url, "writer") as writer, opened(redis_url) as broker:
            await broker.claim(["q"], limit=1, wait=0)
            epoch = await writer.set_rules(_set("revoke:a"))
            await writer.publish([message("a")])
            claiming = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=5))
            await asyncio.sleep(0)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            taken = [*await broker.claim(["q"], limit=1, wait=5)]
            if not taken:  # it ended early, as the rules had changed
                taken += await broker.claim(["q"], limit=1, wait=5)
            assert ([each.message.id for each in taken], broker.epoch) == (["a"], epoch)

    asyncio.run(run())


def test_searching_lists_of_large_messages(redis_url: str) -> None:
    """Pages become short, so that none holds the server up."""

    async def run() -> None:
        async with opened(redis_url) as broker:
            small = [message(f"large-{number}", priority=number % 10) for number in range(300)]
            large = [replace(each, body=b"x" * 50_000) for each in small]
            for at in range(0, 300, 50):
                await broker.publish(large[at : at + 50])
            wanted = {each.id for each in large[::3]}
            found = await broker.withdraw(wanted, ["q"])
            assert {each.message.id for each in found} == wanted
            assert not await broker.extend(found)

    asyncio.run(run())
