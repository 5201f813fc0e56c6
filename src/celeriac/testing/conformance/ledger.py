"""Conformance: the ledger: compare-and-set, life times, conditional publishing, locks that end with their tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import ANY, Change, Lock
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Hold, Release, Settlement, Verdict
from celeriac.ports import BlockingLedger, Broker, Ledger, OncePublisher, Publisher, Timed
from celeriac.testing.conformance.chords import part
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.tools import (
    Background,
    asynchronous,
    child,
    ended,
    ids,
    message,
    only,
    take,
    unified,
)

__all__ = ["Ledgers"]


def _ledger(harness: Harness, broker: Broker) -> Ledger:
    if not isinstance(broker, Ledger):
        harness.cannot("keep a ledger")
    return broker


def _blocking(harness: Harness) -> BlockingLedger:
    if not hasattr(harness.adapter, "ledger"):
        harness.cannot("keep a ledger")
    ledger: BlockingLedger = harness.adapter.ledger(harness.url, harness.adapter_options())
    return ledger


def _purges(harness: Harness) -> None:
    if not harness.purges_locks:
        harness.cannot("drop locks by a purge: they are on another server, and give way to whoever comes next")


def _locked(lock: Lock, **fields: object) -> Message:
    return message(lock.holder, headers={"celeriac_lock": lock.header()}, **fields)  # type: ignore[arg-type]


def _take_lock(publisher: Publisher, lock: Lock, **fields: object) -> None:
    change = Change(lock.key, lock.waiting, None, lock.life)
    assert publisher.publish_if(_locked(lock, **fields), [change], timeout=5.0) is None, "publish_if: the key was free"


class Ledgers:
    """``Ledger``, ``BlockingLedger``, ``Publisher.publish_if``, ``Completion.frees``."""

    # -- compare and set ---------------------------------------------------------------------------------------------

    @asynchronous
    async def test_values_are_kept_as_they_are(self, harness: Harness) -> None:
        ledger = _ledger(harness, await harness.open_broker())
        everything = bytes(range(256)) * 40
        made = await ledger.change_ledger([Change("a", everything), Change("ключ: 1", b""), Change("b", b"x")])
        assert list(made) == [True] * 3, "change_ledger: made"
        there = await ledger.read_ledger(["ключ: 1", "none", "a", "b", "a"])
        assert list(there) == [b"", None, everything, b"x", everything], "read_ledger: in the order of the keys"
        assert list(await ledger.read_ledger([])) == [] == list(await ledger.change_ledger([])), "ledger: of nothing"

    @asynchronous
    async def test_a_change_is_made_when_it_is_as_expected(self, harness: Harness) -> None:
        ledger = _ledger(harness, await harness.open_broker())
        made = await ledger.change_ledger(
            [
                Change("a", b"1", b"0"),  # nothing is there
                Change("a", b"1", None),
                Change("a", b"2", None),  # something is there
                Change("a", b"2", b"0"),  # something else is there
                Change("a", b"2", b"1"),
                Change("b", b"3", ANY),
                Change("b", b"4", ANY),
            ]
        )
        assert list(made) == [False, True, False, False, True, True, True], "change_ledger: only what is expected"
        assert list(await ledger.read_ledger(["a", "b"])) == [b"2", b"4"], "change_ledger: in order"
        made = await ledger.change_ledger(
            [Change("a", None, b"1"), Change("b", None), Change("b", None), Change("none", None, None)]
        )
        assert list(made) == [False, True, True, True], "change_ledger: a value of None drops"
        assert list(await ledger.read_ledger(["a", "b"])) == [b"2", None], "change_ledger: a value of None drops"

    @asynchronous
    async def test_values_live_as_long_as_asked(self, harness: Harness) -> None:
        ledger = _ledger(harness, await harness.open_broker())
        unit = harness.lease
        await ledger.change_ledger(
            [Change("short", b"1", None, unit), Change("long", b"2", None, unit * 100), Change("ever", b"3")]
        )
        await ledger.change_ledger([Change("renewed", b"4", None, unit), Change("renewed", b"4", b"4", unit * 100)])
        await ledger.change_ledger([Change("kept", b"5", None, unit), Change("kept", b"5", b"5")])
        await harness.lapse(unit * 1.3)
        there = await ledger.read_ledger(["short", "long", "ever", "renewed", "kept"])
        assert list(there) == [None, b"2", b"3", b"4", b"5"], "change_ledger: each with its own life time"
        made = await ledger.change_ledger([Change("short", b"6", b"1"), Change("short", b"7", None)])
        assert list(made) == [False, True], "change_ledger: what is over is not there"

    @asynchronous
    async def test_maintenance_leaves_what_lives(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        ledger = _ledger(harness, broker)
        await ledger.change_ledger(
            [Change(f"over-{number}", b"1", None, 0.05) for number in range(50)] + [Change("a", b"1", None, 1000.0)]
        )
        await harness.elapse(0.2)
        await broker.maintain()
        assert list(await ledger.read_ledger(["over-1", "a"])) == [None, b"1"], "maintain: drops only what is over"

    @asynchronous
    async def test_one_of_many_wins(self, harness: Harness) -> None:
        first, second = await harness.open_broker(), await harness.open_broker()
        blocking = _blocking(harness)
        ledgers = [_ledger(harness, first), _ledger(harness, second)]
        won: list[str] = []

        def race(name: str) -> None:
            for key in (f"key-{number}" for number in range(30)):
                (made,) = blocking.change([Change(key, name.encode(), None)], timeout=10.0)
                won.extend([key] * made)

        async def compete(ledger: Ledger, name: str) -> None:
            for number in range(30):
                if (await ledger.change_ledger([Change(f"key-{number}", name.encode(), None)]))[0]:
                    won.append(f"key-{number}")
                await asyncio.sleep(0)

        threads = [Background(lambda name=f"thread-{number}": race(name)) for number in range(4)]  # type: ignore[misc]
        await asyncio.gather(*(compete(ledger, f"loop-{number}") for number, ledger in enumerate(ledgers)))
        for thread in threads:
            await asyncio.to_thread(thread.join)
        blocking.close()
        assert sorted(won) == sorted(f"key-{number}" for number in range(30)), "change_ledger: one wins each key"

    @asynchronous
    async def test_the_blocking_side_is_the_same_ledger(self, harness: Harness) -> None:
        ledger, blocking = _ledger(harness, await harness.open_broker()), _blocking(harness)
        assert list(blocking.change([Change("a", b"1", None), Change("a", b"2", b"0")], timeout=5.0)) == [True, False]
        assert list(await ledger.read_ledger(["a"])) == [b"1"], "BlockingLedger: the same values"
        await ledger.change_ledger([Change("b", b"2")])
        assert list(blocking.read(["b", "none", "a"], timeout=5.0)) == [b"2", None, b"1"], "BlockingLedger: reads"
        assert list(blocking.read([], timeout=5.0)) == [] == list(blocking.change([], timeout=5.0))
        blocking.close()
        assert list(blocking.read(["a"], timeout=5.0)) == [b"1"], "BlockingLedger.close: a later call connects anew"
        blocking.close()

    def test_the_blocking_ledger_survives_forks(self, harness: Harness) -> None:
        blocking = _blocking(harness)
        blocking.change([Change("a", b"1")], timeout=5.0)
        pids = [
            child(lambda number=number: blocking.change([Change(f"c{number}", b"2")], timeout=5.0))  # type: ignore[misc]
            for number in range(3)
        ]
        assert [ended(pid) for pid in pids] == [0, 0, 0], "BlockingLedger: survives forks"
        there = list(blocking.read(["a", "c0", "c2"], timeout=5.0))
        assert there == ([b"1", b"2", b"2"] if harness.between_processes else [b"1", None, None])
        blocking.close()

    def test_a_server_tells_its_time(self, harness: Harness) -> None:
        """``Timed``, where it has a clock of its own."""
        ledger: object = _blocking(harness)
        if not isinstance(ledger, Timed):
            return
        first = ledger.time(timeout=5.0)
        assert isinstance(first, float), "Timed: seconds since the epoch"
        assert first > 1.6e9, "Timed: seconds since the epoch"
        assert 0 <= ledger.time(timeout=5.0) - first < 5.0, "Timed: goes on"

    @asynchronous
    async def test_a_closed_ledger_says_so(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        ledger = _ledger(harness, broker)
        await broker.close()
        with pytest.raises(OperationalError):
            await ledger.read_ledger(["a"])
        with pytest.raises(OperationalError):
            await ledger.change_ledger([Change("a", b"1")])

    # -- publish_if --------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_published_once_under_a_key(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        first = publisher.publish_if(message("a"), [Change("k", b"a", None, 1000.0)], timeout=5.0)
        second = publisher.publish_if(message("b"), [Change("k", b"b", None, 1000.0)], timeout=5.0)
        assert first is None, "publish_if: published"
        assert list(second or ()) == [b"a"], "publish_if: says what stands under the key"
        assert ids(await take(broker)) == ["a"], "publish_if: publishes nothing when a key is taken"
        assert list(await ledger.read_ledger(["k"])) == [b"a"], "publish_if: changes nothing when a key is taken"
        publisher.close()

    @asynchronous
    async def test_all_changes_or_none(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        await ledger.change_ledger([Change("lock", b"old")])
        wrong = [Change("key", b"new", None), Change("lock", b"new", b"other"), Change("note", b"new")]
        there = publisher.publish_if(message("a"), wrong, timeout=5.0)
        assert list(there or ()) == [None, b"old", None], "publish_if: what stands under each key"
        assert list(await ledger.read_ledger(["key", "lock", "note"])) == [None, b"old", None], "publish_if: none"
        right = [Change("key", b"new", None), Change("lock", b"new", b"old"), Change("note", b"new")]
        assert publisher.publish_if(message("b"), right, timeout=5.0) is None, "publish_if: all are as expected"
        assert list(await ledger.read_ledger(["key", "lock", "note"])) == [b"new"] * 3, "publish_if: all"
        assert ids(await take(broker)) == ["b"], "publish_if: with the message"
        publisher.close()

    @asynchronous
    async def test_a_key_is_free_when_its_time_is_over(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        publisher.publish_if(message("a"), [Change("k", b"a", None, harness.lease)], timeout=5.0)
        await harness.lapse(harness.lease * 1.3)
        again = publisher.publish_if(message("b"), [Change("k", b"b", None, harness.lease)], timeout=5.0)
        assert again is None, "publish_if: what is over is not there"
        assert ids(await take(broker)) == ["a", "b"], "publish_if: published"
        publisher.close()

    @asynchronous
    async def test_many_at_once_each_under_its_key(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        if not isinstance(publisher, OncePublisher):
            pytest.skip("publishes under keys one by one")
        ledger = _ledger(harness, broker)
        first = publisher.publish_once({"1": message("a"), "2": message("b", "other")}, expires=1000.0, timeout=5.0)
        again = {"1": message("a"), "2": message("b", "other"), "3": message("c")}
        second = publisher.publish_once(again, expires=1000.0, timeout=5.0)
        assert (sorted(first), list(second)) == (["1", "2"], ["3"]), "publish_once: those whose keys held nothing"
        assert ids(await take(broker)) == ["a", "c"], "publish_once: once, in order"
        assert ids(await take(broker, "other")) == ["b"], "publish_once: to each queue"
        assert None not in await ledger.read_ledger(["1", "2", "3"]), "publish_once: writes the keys"
        many = {f"k{number}": message(f"m{number}") for number in range(700)}
        assert list(publisher.publish_once(many, expires=harness.lease, timeout=5.0)) == list(many)
        assert list(publisher.publish_once(many, expires=harness.lease, timeout=5.0)) == []
        await harness.lapse(harness.lease * 1.3)
        assert list(publisher.publish_once({"k0": message("z")}, expires=1.0, timeout=5.0)) == ["k0"], "for their time"
        publisher.close()

    @asynchronous
    async def test_it_keeps_priority_and_due_time(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        later = harness.now() + harness.soon
        publisher.publish_if(message("low", priority=9), [Change("1", b"x", None)], timeout=5.0)
        publisher.publish_if(message("high"), [Change("2", b"x", None)], timeout=5.0)
        publisher.publish_if(message("later", due=later), [Change("3", b"x", None)], timeout=5.0)
        taken = await take(broker)
        early = [each for each in taken if each.message.id == "later"]
        if early:  # a plain producer of Celery's layout: the caller releases it
            await broker.settle([Release(early[0], due=later)])
        assert [name for name in ids(taken) if name != "later"] == ["high", "low"], "publish_if: as publish"
        await harness.lapse(harness.soon + 0.1)
        assert ids(await take(broker)) == ["later"], "publish_if: not before its time"
        publisher.close()

    @asynchronous
    async def test_it_wakes_a_waiting_claim(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        claiming = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=20.0))
        await harness.elapse(0.1)
        await asyncio.sleep(0.05)
        await asyncio.to_thread(publisher.publish_if, message("a"), [Change("k", b"a", None)], timeout=5.0)
        async with asyncio.timeout(harness.late * 3):
            assert ids(await claiming) == ["a"], "publish_if: wakes a waiting claim"
        publisher.close()

    @asynchronous
    async def test_threads_that_publish_under_one_key(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        start = threading.Barrier(8)
        published: list[str] = []

        def produce(thread: int) -> None:
            start.wait(10.0)
            for number in range(20):
                name = f"{thread}-{number}"
                change = Change(f"key-{number}", name.encode(), None, 1000.0)
                if publisher.publish_if(message(name), [change], timeout=20.0) is None:
                    published.append(name)

        threads = [Background(lambda thread=thread: produce(thread)) for thread in range(8)]  # type: ignore[misc]
        for thread in threads:
            await asyncio.to_thread(thread.join)
        publisher.close()
        got = ids(await take(broker))
        assert sorted(got) == sorted(published), "publish_if: None means published"
        assert sorted(name.partition("-")[2] for name in got) == sorted(map(str, range(20))), "publish_if: one a key"

    @asynchronous
    async def test_processes_that_publish_under_one_key(self, harness: Harness) -> None:
        if not harness.between_processes:
            harness.cannot("be reached by other processes")
        broker = await harness.open_broker()

        def produce(process: int) -> None:
            publisher = harness.publisher()
            for number in range(25):
                change = Change(f"key-{number}", str(process).encode(), None, 1000.0)
                publisher.publish_if(message(f"{process}-{number}"), [change], timeout=20.0)
            publisher.close()

        pids = [child(lambda process=process: produce(process)) for process in range(4)]  # type: ignore[misc]
        assert [await asyncio.to_thread(ended, pid) for pid in pids] == [0] * 4
        numbers = [int(name.partition("-")[2]) for name in ids(await take(broker))]
        assert sorted(numbers) == list(range(25)), "publish_if: one a key, whatever the process"

    @asynchronous
    async def test_a_spoilt_queue_takes_no_key(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        await harness.spoil("bad")
        with pytest.raises(OperationalError):
            publisher.publish_if(message("a", "bad"), [Change("k", b"a", None)], timeout=5.0)
        await harness.heal("bad")
        assert list(await ledger.read_ledger(["k"])) == [None], "publish_if: nothing without the message"
        publisher.close()

    def test_what_cannot_be_encoded_takes_no_key(self, harness: Harness) -> None:
        publisher, blocking = harness.publisher(), _blocking(harness)
        with pytest.raises((TypeError, ValueError)):
            publisher.publish_if(message("a", headers={"x": object()}), [Change("k", b"a", None)], timeout=5.0)
        assert list(blocking.read(["k"], timeout=5.0)) == [None], "publish_if: nothing without the message"
        publisher.close()
        blocking.close()

    def test_nobody_there_is_said_in_time(self, harness: Harness) -> None:
        if harness.unreachable is None:
            harness.cannot("name a server that is not there")
        publisher = harness.publisher(url=harness.unreachable)
        with pytest.raises(OperationalError) as caught:
            publisher.publish_if(message("a"), [Change("k", b"a", None)], timeout=2.0)
        assert harness.password not in str(caught.value), "publish_if: its text never holds a password"
        publisher.close()

    # -- locks -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("started", [False, True])
    @pytest.mark.parametrize("way", ["accept", "dead", "release", "hold"])
    @asynchronous
    async def test_finish_frees_a_lock(self, harness: Harness, way: str, started: bool) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        lock, other = Lock("lock-1", "a"), Lock("lock-2", "somebody else")
        _take_lock(publisher, lock)
        publisher.close()
        await ledger.change_ledger([Change(other.key, other.waiting)])
        delivery = await only(broker)
        if started:
            assert list(await ledger.change_ledger([lock.begins()])) == [True], "Lock.begins: by the waiting task"
            assert list(await ledger.change_ledger([lock.begins()])) == [False], "Lock.begins: once"
        ends: dict[str, Settlement | Hold] = {
            "accept": Accept(delivery),
            "dead": DeadLetter(delivery=delivery, reason=DeadReason.FAILED),
            "release": Release(delivery),
            "hold": Hold(delivery),
        }
        frees = (lock, Lock(other.key, "a"), Lock("none", "a"))
        done = Completion(settlement=ends[way], result=record("a"), frees=frees)
        assert list(await unified(harness, broker).finish([done])) == [Verdict.DONE]
        there = list(await ledger.read_ledger([lock.key, other.key]))
        assert there == [None, other.waiting], "finish: frees what the task holds, and nothing else"

    @asynchronous
    async def test_a_fenced_one_frees_nothing(self, harness: Harness) -> None:
        late, rightful = await harness.open_broker(lease=harness.lease), await harness.open_broker()
        publisher = harness.publisher()
        ledger, lock = _ledger(harness, rightful), Lock("lock", "a")
        _take_lock(publisher, lock)
        publisher.close()
        old = await only(late)
        await harness.lapse(harness.lease * 1.2)
        await rightful.maintain()
        new = await only(rightful)
        for settlement in (Accept(old), Hold(old)):
            verdicts = await unified(harness, late).finish([Completion(settlement=settlement, frees=(lock,))])
            assert list(verdicts) == [Verdict.FENCED], "finish: fenced when the token is gone"
        assert list(await ledger.read_ledger(["lock"])) == [lock.waiting], "finish: a fenced one frees nothing"
        await unified(harness, rightful).finish([Completion(settlement=Accept(new), frees=(lock,))])
        assert list(await ledger.read_ledger(["lock"])) == [None], "finish: the rightful holder frees"

    @asynchronous
    async def test_locks_of_members_of_chords(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        locks = [Lock(f"lock-{name}", name) for name in ("a", "b", "c")]
        for lock in locks:
            _take_lock(publisher, lock)
        publisher.close()

        def joining(delivery: Delivery, lock: Lock) -> Completion:
            member = part(0, member=delivery.message.id)
            return Completion(settlement=Accept(delivery), result=record(lock.holder), parts=[member], frees=(lock,))

        taken = await take(broker)
        plain = Completion(settlement=Accept(taken[2]), frees=(locks[2],))
        done = [joining(taken[0], locks[0]), plain, joining(taken[1], locks[1])]
        assert list(await unified(harness, broker).finish(done)) == [Verdict.DONE] * 3
        there = list(await ledger.read_ledger([lock.key for lock in locks]))
        assert there == [None] * 3, "finish: frees, whether or not it joins a chord"

    @asynchronous
    async def test_settling_and_losing_a_lease_keep_a_lock(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(lease=harness.lease), harness.publisher()
        ledger, lock = _ledger(harness, broker), Lock("lock", "a")
        _take_lock(publisher, lock)
        publisher.close()
        await broker.settle([Release(await only(broker))])
        await only(broker)
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        await only(broker)
        assert list(await ledger.read_ledger(["lock"])) == [lock.waiting], "a lock stays until the task ends"

    @pytest.mark.parametrize("side", ["broker", "publisher"])
    @asynchronous
    async def test_a_purge_frees_the_locks_of_what_it_drops(self, harness: Harness, side: str) -> None:
        _purges(harness)
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger = _ledger(harness, broker)
        locks = {name: Lock(f"lock-{name}", name) for name in ("ready", "low", "later", "elsewhere", "leased", "lost")}
        _take_lock(publisher, locks["leased"])
        await only(broker)
        _take_lock(publisher, locks["ready"])
        _take_lock(publisher, locks["low"], priority=9)
        _take_lock(publisher, locks["elsewhere"], queue="other")
        _take_lock(publisher, locks["lost"])
        await broker.publish([_locked(locks["later"], due=harness.now() + 1000.0), message("plain")])
        await ledger.change_ledger([Change("lock-later", b"later"), Change("lock-lost", b"a later one")])
        await ledger.change_ledger([locks["low"].begins()])
        dropped = await broker.purge("q") if side == "broker" else publisher.purge("q", timeout=10.0)
        assert dropped == 5, "purge: returns how many messages that were"
        there = dict(zip(locks, await ledger.read_ledger([lock.key for lock in locks.values()]), strict=True))
        kept = {"elsewhere": b"elsewhere", "leased": b"leased", "lost": b"a later one"}
        assert there == {**dict.fromkeys(locks), **kept}, "purge: frees the locks of what it drops"
        publisher.close()

    @asynchronous
    async def test_a_large_purge(self, harness: Harness) -> None:
        _purges(harness)
        broker, publisher = await harness.open_broker(), harness.publisher()
        ledger, lock = _ledger(harness, broker), Lock("lock", "a")
        publisher.publish([message() for _ in range(5000)], timeout=20.0)
        _take_lock(publisher, lock)
        publisher.publish([message() for _ in range(10)], timeout=20.0)
        assert await broker.purge("q") == 5011, "purge: any number"
        assert list(await ledger.read_ledger(["lock"])) == [None], "purge: frees the locks of what it drops"
        publisher.close()
