"""Conformance: dead letters looked at, sent again, dropped, and kept within bounds."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from contextlib import closing
from typing import Any

import pytest

from celeriac.model.dead import ALL, DeadFilter, DeadRecord, Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.model.message import Malformed, Marks
from celeriac.model.settle import DeadLetter, DeadReason, Release
from celeriac.ports import Broker, DeadLetters, Depth, Ledger
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import asynchronous, gathered, ids, message, messages, only, take

__all__ = ["Dead"]

#: Seconds that one call may take.
_LONG = 10.0


class Dead:
    """``DeadLetters``, and what ``maintain`` drops."""

    @asynchronous
    async def test_a_page_of_dead_letters(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        with closing(harness.dead_letters()) as letters:
            page = await asyncio.to_thread(letters.page, ALL, limit=5, timeout=_LONG)
            assert (page.records, page.after) == ((), ""), "page: of no letters"
            facts: dict[str, Any] = {
                "reason": DeadReason.TIME_LIMIT,
                "detail": "what ha\x1bppened",
                "exception": "ValueError: é",
                "traceback": "one\ntwo",
                "worker": "w1@host",
                "at": round(harness.now(), 3),
            }
            await broker.publish([message("a", task="x.y"), message("b", task="x.y")])
            held = await take(broker)
            await broker.settle([DeadLetter(delivery=each, **facts) for each in held])
            page = await asyncio.to_thread(letters.page, ALL, limit=5, timeout=_LONG)
            assert page.after == "", "page: the last one says so"
            assert list(page.records) == list(await broker.dead()), "page: the same letters as Broker.dead shows"
            record = next(each for each in page.records if each.id == "a")
            assert {name: getattr(record, name) for name in facts} == facts, "page: all that the settlement says"
            assert record.raw == held[0].raw, "page: the bytes as they were stored"
            found = await asyncio.to_thread(letters.get, [record.key, "nobody", "-1", ""], timeout=_LONG)
            assert list(found) == [record, None, None, None], "get: the letter of a key, or None"

    @asynchronous
    async def test_filters_of_dead_letters(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        # Letters that no key begins with: keys may be hexadecimal, and are looked for too.
        now = round(harness.now(), 3)
        await _die(broker, "o", task="shop.pay", exception="ValueError: no money", at=now - 100)
        await _die(broker, "p", task="shop.mail", exception="TimeoutError: late", at=now - 50)
        await _die(broker, "p-2", queue="other", task="shop.pay", reason=DeadReason.CRASHED, at=now)
        with closing(harness.dead_letters()) as letters:
            records = {each.id: each for each in await _all(letters)}
            for wanted, expected in (
                (DeadFilter(task="shop.pay"), "p-2 o"),
                (DeadFilter(task="shop.*"), "p-2 p o"),
                (DeadFilter(task="shop"), ""),
                (DeadFilter(queue="other"), "p-2"),
                (DeadFilter(queue="none"), ""),
                (DeadFilter(reason="worker lost"), "p-2"),
                (DeadFilter(exception="valueerror"), "o"),
                (DeadFilter(exception="LATE"), "p"),
                (DeadFilter(since=now - 50), "p-2 p"),
                (DeadFilter(before=now - 50), "o"),
                (DeadFilter(since=now - 60, before=now), "p"),
                (DeadFilter(ids=("p",)), "p-2 p"),
                (DeadFilter(ids=("o", "p-")), "p-2 o"),
                (DeadFilter(ids=(records["o"].key,)), "o"),
                (DeadFilter(task="shop.*", queue="q", exception="late"), "p"),
            ):
                found = await _all(letters, wanted)
                assert " ".join(each.id for each in found) == expected, f"page: those that fit {wanted}"

    @asynchronous
    async def test_pages_show_each_dead_letter_once(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        names = [f"id-{number:02}" for number in range(40)]
        await broker.publish(messages(*names))
        at = harness.now()
        # Several die in the same moment.
        await broker.settle(
            [
                DeadLetter(delivery=each, reason=DeadReason.FAILED, at=at + number // 8)
                for number, each in enumerate(await take(broker))
            ]
        )
        with closing(harness.dead_letters()) as letters:
            everything = [each.id for each in await _all(letters)]
            assert sorted(everything) == names, "page: following after shows every letter once"
            assert [each.id for each in await _all(letters, limit=7)] == everything, "page: whatever the limit is"
            page = await asyncio.to_thread(letters.page, ALL, limit=10, timeout=_LONG)
            assert [each.id for each in page.records] == everything[:10], "page: up to limit"
            # What was seen goes, with the one that the cursor names; one of the others too; one is added.
            gone = [each.key for each in page.records]
            assert await asyncio.to_thread(letters.drop, gone, timeout=_LONG) == 10
            victim = (await _all(letters))[5]
            await asyncio.to_thread(letters.drop, [victim.key], timeout=_LONG)
            await _die(broker, "new", at=at + 100)
            rest = [each.id for each in await _all(letters, after=page.after)]
            expected = [name for name in everything[10:] if name != victim.id]
            assert rest == expected, "page: what stays is seen once, whatever is added and dropped meanwhile"

    @asynchronous
    async def test_many_dead_letters_are_looked_at_in_bounded_steps(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish([message(f"id-{number}", task=f"t{number % 2}") for number in range(2500)])
        taken = await take(broker, limit=2500)
        await broker.settle([DeadLetter(delivery=each, reason=DeadReason.FAILED) for each in taken])
        with closing(harness.dead_letters()) as letters:
            assert len(await _all(letters, DeadFilter(task="t1"))) == 1250, "page: through all letters"
            page = await asyncio.to_thread(letters.page, DeadFilter(task="none"), limit=5, timeout=_LONG)
            assert page.records == (), "page: none that fits"
            assert page.after, "page: looks at a bounded number of letters"

    @asynchronous
    async def test_a_replayed_dead_letter_runs_again(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await _die(broker, "a", marks=Marks(crashes=2))
        await _die(broker, "b")
        with closing(harness.dead_letters()) as letters:
            b, a = await _all(letters)
            sent = message("a", "elsewhere", headers={"celeriac_replay": {"times": 1}}, priority=3)
            replays = [Replay(key=a.key, message=sent)]
            assert list(await asyncio.to_thread(letters.replay, replays, timeout=_LONG)) == []
            assert [each.id for each in await _all(letters)] == ["b"], "replay: drops the letter"
            depth = await broker.depth(["q", "elsewhere"])
            assert depth == {"q": Depth(dead=1), "elsewhere": depth["elsewhere"]}, "depth: after a replay"
            taken = await only(broker, "elsewhere")
            assert not isinstance(taken.message, Malformed)
            assert taken.message.headers["celeriac_replay"] == {"times": 1}, "replay: publishes that message"
            assert (taken.message.priority, taken.redelivered, taken.marks) == (3, False, Marks())
            again = [Replay(key=a.key, message=sent), Replay(key=b.key, message=message("b"))]
            gone = await asyncio.to_thread(letters.replay, again, timeout=_LONG)
            assert list(gone) == [Stayed(a.key)], "replay: returns those that are not there"
            assert ids(await take(broker, "q", "elsewhere")) == ["b"], "replay: and publishes nothing for those"
            unknown = [Replay(key=key, message=sent) for key in ("", "nobody", "-1", "9" * 30)]
            assert len(await asyncio.to_thread(letters.replay, unknown, timeout=_LONG)) == 4
            assert await take(broker, "q", "elsewhere") == []

    @asynchronous
    async def test_a_replay_takes_a_lock_in_the_same_step(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        for each in ("a", "b", "c", "d"):
            await _die(broker, each)
        if not isinstance(broker, Ledger):
            harness.cannot("keep a ledger")
        with closing(harness.dead_letters()) as letters:
            d, c, b, a = await _all(letters)
            free = Change("lock", b"a", None, 50.0)
            replays = [
                Replay(key="nobody", message=message("n"), change=free),
                Replay(key=a.key, message=message("a"), change=free),
                Replay(key=b.key, message=message("b"), change=Change("lock", b"b", None)),
                Replay(key=c.key, message=message("c")),
                Replay(key=d.key, message=message("d", "elsewhere"), change=Change("other", b"d", b"x")),
            ]
            stayed = await asyncio.to_thread(letters.replay, replays, timeout=_LONG)
            assert list(stayed) == [Stayed("nobody"), Stayed(b.key, False, b"a"), Stayed(d.key, False, None)]
            assert [each.id for each in await _all(letters)] == ["d", "b"], "replay: such a letter stays"
            assert ids(await take(broker, "q", "elsewhere")) == ["a", "c"], "replay: its message is not published"
            there = await broker.read_ledger(["lock", "other"])
            assert list(there) == [b"a", None], "replay: makes the change with the message"
            over = [Replay(key=b.key, message=message("b"), change=Change("lock", b"b", b"a", harness.soon))]
            assert list(await asyncio.to_thread(letters.replay, over, timeout=_LONG)) == []
            assert list(await broker.read_ledger(["lock"])) == [b"b"], "replay: takes over what is expected"
            await harness.lapse(harness.soon * 1.5)
            assert list(await broker.read_ledger(["lock"])) == [None], "replay: for the time of the change"

    @asynchronous
    async def test_a_replay_that_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await _die(broker, "a")
        await _die(broker, "b")
        with closing(harness.dead_letters()) as letters:
            b, a = await _all(letters)
            bad = message("b", headers={"x": object()})
            with pytest.raises((TypeError, ValueError)):
                await asyncio.to_thread(
                    letters.replay,
                    [Replay(key=a.key, message=message("a")), Replay(key=b.key, message=bad)],
                    timeout=_LONG,
                )
            assert len(await _all(letters)) == 2, "replay: nothing of a call that cannot be encoded happens"
            assert await take(broker) == []

    @asynchronous
    async def test_replays_at_once_send_each_dead_letter_once(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        names = [f"id-{number}" for number in range(300)]
        await broker.publish(messages(*names))
        await broker.settle([DeadLetter(delivery=each, reason=DeadReason.FAILED) for each in await take(broker)])
        with closing(harness.dead_letters()) as letters:
            replays = [Replay(key=each.key, message=message(each.id)) for each in await _all(letters)]
            gone = await gathered(
                *(asyncio.to_thread(letters.replay, order, timeout=_LONG) for order in (replays, replays[::-1]))
            )
            assert sum(map(len, gone)) == 300, "replay: each letter is there for one of them"
            assert sorted(ids(await take(broker))) == sorted(names), "replay: each message is published once"

    @asynchronous
    async def test_a_replay_wakes_who_waits(self, harness: Harness) -> None:
        broker, other = await harness.open_broker(), await harness.open_broker()
        await _die(broker, "a")
        with closing(harness.dead_letters()) as letters:
            (letter,) = await _all(letters)
            waiting = asyncio.ensure_future(other.claim(["q"], limit=1, wait=5.0))
            await harness.elapse(0.05)
            await asyncio.to_thread(letters.replay, [Replay(key=letter.key, message=message("a"))], timeout=_LONG)
            async with asyncio.timeout(2.0):
                assert ids(await waiting) == ["a"]

    @asynchronous
    async def test_dropped_dead_letters_are_gone(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await _die(broker, "a")
        await _die(broker, "b", queue="other")
        with closing(harness.dead_letters()) as letters:
            _, a = await _all(letters)
            assert await asyncio.to_thread(letters.drop, [a.key, "nobody", a.key], timeout=_LONG) == 1
            assert [each.id for each in await _all(letters)] == ["b"], "drop: forgets the letter"
            assert await broker.depth(["q", "other"]) == {"q": Depth(), "other": Depth(dead=1)}, "depth: after a drop"
            assert await asyncio.to_thread(letters.drop, [], timeout=_LONG) == 0
        page = await asyncio.to_thread(letters.page, ALL, limit=5, timeout=_LONG)
        assert [each.id for each in page.records] == ["b"], "close: a later call connects anew"
        letters.close()

    @pytest.mark.parametrize("raw", [b"", b"\xff\x00 no envelope", b"{", b'{"body": 7}' * 300])
    @asynchronous
    async def test_dead_letters_hold_any_bytes(self, harness: Harness, raw: bytes) -> None:
        broker = await harness.open_broker()
        await harness.inject("q", raw)
        bad = await only(broker)
        await broker.settle([DeadLetter(delivery=bad, reason=DeadReason.MALFORMED)])
        with closing(harness.dead_letters()) as letters:
            (record,) = await _all(letters)
            assert record.raw == raw, "page: the bytes as they were stored"
            assert list(await asyncio.to_thread(letters.get, [record.key], timeout=_LONG)) == [record]
            assert await asyncio.to_thread(letters.drop, [record.key], timeout=_LONG) == 1

    @asynchronous
    async def test_dead_letters_beyond_their_bytes_are_dropped(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        broker = await harness.open_broker(dead_letter_max_bytes=100_000)
        for number in range(10):
            await _die(broker, f"id-{number}", at=harness.now(), traceback="x" * 15_000)
        assert len(await broker.dead()) == 10, "maintain: it is what drops"
        await broker.maintain()
        kept = [each.id for each in await broker.dead()]
        assert 3 <= len(kept) <= 6, "maintain: drops dead letters past their total size"
        assert kept == [f"id-{number}" for number in range(9, 9 - len(kept), -1)], "maintain: the oldest first"
        assert (await broker.depth(["q"]))["q"].dead == len(kept), "depth: after dead letters were dropped"
        told = [each.getMessage() for each in caplog.records if "dead letters were dropped" in each.getMessage()]
        assert len(told) == 1, "maintain: says that letters were dropped before their time"
        await _die(broker, "one-more", at=harness.now(), traceback="x" * 15_000)
        await broker.maintain()
        again = [each for each in caplog.records if "dead letters were dropped" in each.getMessage()]
        assert len(again) == 1, "maintain: says it once"
        with closing(harness.dead_letters()) as letters:
            await asyncio.to_thread(letters.drop, [each.key for each in await _all(letters)], timeout=_LONG)
        await _die(broker, "last", at=harness.now(), traceback="x" * 15_000)
        await broker.maintain()
        assert [each.id for each in await broker.dead()] == ["last"], "maintain: counts what is there"

    @asynchronous
    async def test_dead_letters_without_bounds_stay(self, harness: Harness) -> None:
        bounds = {"dead_letter_limit": sys.maxsize, "dead_letter_max_bytes": sys.maxsize}
        broker = await harness.open_broker(dead_letter_expires=math.inf, **bounds)
        await _die(broker, "old", at=1.0)
        await broker.maintain()
        assert [each.id for each in await broker.dead()] == ["old"], "maintain: no bound, nothing dropped"

    @asynchronous
    async def test_old_dead_letters_go_without_a_warning(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        broker = await harness.open_broker(dead_letter_expires=0.2)
        await _die(broker, "old", at=harness.now())
        await harness.lapse(0.3)
        await broker.maintain()
        assert list(await broker.dead()) == []
        assert "dead letters were dropped" not in caplog.text


async def _die(
    broker: Broker,
    task_id: str,
    queue: str = "q",
    *,
    task: str = "conformance.task",
    reason: DeadReason = DeadReason.FAILED,
    exception: str = "",
    traceback: str = "",
    at: float = 0.0,
    marks: Marks | None = None,
) -> None:
    """Publish a message and send it to the dead letters."""
    await broker.publish([message(task_id, queue, task=task)])
    if marks is not None:
        await broker.settle([Release(await only(broker, queue), marks=marks)])
    delivery = await only(broker, queue)
    letter = DeadLetter(delivery=delivery, reason=reason, exception=exception, traceback=traceback, at=at)
    assert not await broker.settle([letter]), "settle: a held token is not refused"


async def _all(
    letters: DeadLetters, wanted: DeadFilter = ALL, *, limit: int = 1000, after: str = ""
) -> list[DeadRecord]:
    """Every letter that is wanted, page by page."""
    found: list[DeadRecord] = []
    while True:
        page = await asyncio.to_thread(letters.page, wanted, limit=limit, after=after, timeout=_LONG)
        assert len(page.records) <= limit, "page: up to limit"
        found += page.records
        after = page.after
        if not after:
            return found
