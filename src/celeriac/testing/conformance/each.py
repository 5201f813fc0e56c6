"""Conformance: many conditional messages in one call (``EachPublisher``)."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.ports import EachPublisher, Ledger
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import Background, asynchronous, ids, message, take

__all__ = ["EachOfMany"]


class EachOfMany:
    """``EachPublisher``."""

    @asynchronous
    async def test_many_at_once_each_with_changes_of_its_own(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        if not isinstance(publisher, EachPublisher) or not isinstance(broker, Ledger):
            pytest.skip("publishes with changes one by one")
        await broker.change_ledger([Change("2", b"old"), Change("5", b"old"), Change("lock", b"held")])
        sendings = [
            (message("a"), [Change("1", b"a", None, 1000.0)]),
            (message("b"), [Change("2", b"b", b"other")]),
            (message("c"), [Change("3", b"c", None), Change("lock", b"c", None)]),
            (message("d"), [Change("4", b"d", None), Change("free", b"d", None)]),
            (message("e", "other"), [Change("5", b"e", b"old")]),
        ]
        first = publisher.publish_each_if(sendings, timeout=5.0)
        assert [each is None for each in first] == [True, False, False, True, True], "publish_each_if: each for itself"
        assert list(first[1]) == [b"old"], "publish_each_if: what stands under the key"  # type: ignore[arg-type]
        assert list(first[2]) == [None, b"held"], "publish_each_if: under each key"  # type: ignore[arg-type]
        assert sorted(ids(await take(broker))) == ["a", "d"], "publish_each_if: the message with its changes"
        assert ids(await take(broker, "other")) == ["e"], "publish_each_if: to each queue"
        there = list(await broker.read_ledger(["1", "2", "3", "lock", "4", "free", "5"]))
        assert there == [b"a", b"old", None, b"held", b"d", b"d", b"e"], "publish_each_if: all changes of one, or none"
        again = publisher.publish_each_if(sendings, timeout=5.0)
        assert [list(each) for each in again] == [  # type: ignore[arg-type]
            [b"a"], [b"old"], [None, b"held"], [b"d", b"d"], [b"e"],
        ], "publish_each_if: who repeats it learns what was done"  # fmt: skip
        many = [(message(f"m{number}"), [Change(f"k{number}", b"x", None)]) for number in range(500)]
        assert list(publisher.publish_each_if(many, timeout=10.0)) == [None] * 500
        assert sorted(ids(await take(broker, limit=1000))) == sorted(each.id for each, _ in many)
        assert list(publisher.publish_each_if([], timeout=5.0)) == []
        publisher.close()

    @asynchronous
    async def test_of_many_at_once_one_is_spoilt(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        if not isinstance(publisher, EachPublisher) or not isinstance(broker, Ledger):
            pytest.skip("publishes with changes one by one")
        odd = [(message("a"), [Change("1", b"a", None)]), (message("b", headers={"x": object()}), [])]
        with pytest.raises((TypeError, ValueError)):
            publisher.publish_each_if(odd, timeout=5.0)
        assert list(await broker.read_ledger(["1"])) == [None], "publish_each_if: nothing when one cannot be encoded"
        await harness.spoil("bad")
        sendings = [
            (message("a"), [Change("1", b"a", None)]),
            (message("b", "bad"), [Change("2", b"b", None)]),
            (message("c"), [Change("3", b"c", None)]),
        ]
        try:
            answers = list(publisher.publish_each_if(sendings, timeout=5.0))
        except OperationalError:
            wanted: list[bytes | None] = [None, None, None]
        else:
            assert isinstance(answers[1], OperationalError), "publish_each_if: the error of one that is refused"
            assert (answers[0], answers[2]) == (None, None), "publish_each_if: the others are published"
            wanted = [b"a", None, b"c"]
        await harness.heal("bad")
        assert list(await broker.read_ledger(["1", "2", "3"])) == wanted, "publish_each_if: no key without its message"
        assert ids(await take(broker)) == [each.decode() for each in wanted if each], "publish_each_if: nor the other"
        publisher.close()

    @asynchronous
    async def test_threads_that_publish_many_at_once_under_the_same_keys(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        if not isinstance(publisher, EachPublisher):
            pytest.skip("publishes with changes one by one")
        start = threading.Barrier(4)
        published: list[str] = []

        def produce(thread: int) -> None:
            start.wait(10.0)
            order = random.Random(thread).sample(range(50), 50)
            sendings = [(message(f"{thread}-{n}"), [Change(f"key-{n}", b"x", None, 1000.0)]) for n in order]
            answers = publisher.publish_each_if(sendings, timeout=20.0)
            published.extend(each.id for (each, _), there in zip(sendings, answers, strict=True) if there is None)

        threads = [Background(lambda thread=thread: produce(thread)) for thread in range(4)]  # type: ignore[misc]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        publisher.close()
        got = ids(await take(broker, limit=1000))
        assert sorted(got) == sorted(published), "publish_each_if: None means published"
        assert sorted(int(name.partition("-")[2]) for name in got) == list(range(50)), "publish_each_if: one a key"
