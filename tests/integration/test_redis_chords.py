"""Chords on a real Redis: what only Redis can do wrong.

What the port says of chords is tested by tests/conformance; Celery as the peer by test_redis_chords_celery.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from celeriac.brokers import redis
from celeriac.brokers.redis.wire import Wire
from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Hold, Release, Verdict
from celeriac.ports import CHORD_LOOK, AdapterOptions
from tests.integration.redis_chords import (
    BODY,
    ROOT,
    SHAPE,
    due,
    dump,
    ended,
    lent,
    message,
    opened,
    other,
    part,
    servers,
    value,
)
from tests.proxy import Proxy
from tests.servers import RedisServer, eventually

MakeRedis = Callable[..., RedisServer]


def test_the_token_of_a_celery_worker_counts(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (broker, _):
            redis_server.command("SET", f"{ROOT}c.c", "8f14e45fceea167a5a36dedd4bea2543", "EX", 10)
            a, b = await lent(broker, "a", "b")
            assert await broker.finish([ended(a, part(0))]) == [Verdict.DONE]
            redis_server.command("DEL", f"{ROOT}c.c")
            assert await broker.finish([ended(b, part(0))]) == [Verdict.COMPLETES]

    asyncio.run(run())


def test_every_key_has_the_prefix(redis_server: RedisServer, redis_url: str) -> None:
    options: dict[str, Any] = {"key_prefix": "p:"}
    opened(redis_url, NewChord(id="c", size=2, body=BODY, shape=SHAPE), **options)
    reader = redis.reader(redis_url, AdapterOptions(**options))
    reader.save_group("g", SHAPE, expires=60, timeout=30.0)
    reader.grow_chord("c", 1, timeout=30.0)
    reader.close()

    async def run() -> None:
        async with servers(redis_url, **options) as (broker, store):
            (a,) = await lent(broker, "a")
            fields: dict[str, Any] = {"opens": [NewChord(id="d", size=1, body=BODY)], "others": [other("o")]}
            assert await broker.finish([ended(a, part(0), part(1), **fields)]) == [Verdict.DONE]
            assert await store.join([part(2)], token="t") == ["c"]
            assert await store.close_chord(Closing("c", "t"))

    asyncio.run(run())
    keys = redis_server.command("KEYS", "*")
    assert {b"p:celeriac:chord:d", b"p:celeriac:chords", b"p:celery-taskset-meta-g", b"p:celery-task-meta-o"} <= {*keys}
    assert all(key.startswith(b"p:") for key in keys)


def test_one_script_for_256_members_of_a_chord(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=256, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            taken = await lent(broker, *(f"m-{number}" for number in range(256)))
            await store.join([part(0)], token="t")
            redis_server.command("CONFIG", "RESETSTAT")
            done = [ended(each, part(index)) for index, each in enumerate(taken)]
            assert await broker.finish(done) == [Verdict.DONE] * 255 + [Verdict.COMPLETES]
            stats = redis_server.info("commandstats")
            calls = {name: int(text.partition("calls=")[2].partition(",")[0]) for name, text in stats.items()}
            ran = calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0)
            assert ran <= 2, "NOSCRIPT on the first use, at most"
            members = calls.pop("cmdstat_set") + calls.pop("cmdstat_publish")
            assert members <= 2 * 256 + 2
            assert sum(calls.values()) < 50, "what concerns the chord is done once"
            assert redis_server.command("HLEN", "unacked") == 1
            assert await broker.settle([Accept(taken[-1])]) == [], "what completes a chord is still leased"

    asyncio.run(run())


def test_ten_thousand_members(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=10_000, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            taken: list[Delivery] = []
            for at in range(0, 10_000, 2500):
                taken = await lent(broker, *(f"m-{number}" for number in range(at, at + 2500)))
                done = [ended(each, part(at + index)) for index, each in enumerate(taken)]
                verdicts = await broker.finish(done)
                last = Verdict.COMPLETES if at == 7500 else Verdict.DONE
                assert verdicts == [*[Verdict.DONE] * 2499, last]
            found = await store.gather("c", token=taken[-1].token)
            assert found is not None
            assert list(found.parts) == [value(index) for index in range(10_000)]
            assert await store.close_chord(Closing("c", taken[-1].token))
            assert redis_server.command("KEYS", f"{ROOT}*") == [f"{ROOT}c.c".encode()]

    asyncio.run(run())


@pytest.mark.parametrize("together", [True, False])
def test_a_task_at_two_places_with_the_same_result(redis_url: str, together: bool) -> None:
    opened(redis_url, NewChord(id="c", size=3, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (_, store):
            parts = [part(index, id="m", value=value("m")) for index in (2, 0, 1)]
            complete: Sequence[str] = []
            for some in [parts] if together else [[each] for each in parts]:
                complete = await store.join(some, token="t")
            assert complete == ["c"]
            found = await store.gather("c", token="t")
            assert found is not None
            assert list(found.parts) == [value("m")] * 3

    asyncio.run(run())


def test_a_part_of_the_other_form_goes_where_the_others_are(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=2, body=BODY, expires=600.0))

    async def run() -> None:
        unordered: dict[str, Any] = {"transport": {"result_chord_ordered": False}}
        async with servers(redis_url, **unordered) as (_, store), servers(redis_url) as (_, other_store):
            await store.join([part(1)], token="t")
            assert await other_store.join([part(0)], token="t") == ["c"]
            found = await other_store.gather("c", token="t")
            assert found is not None
            assert list(found.parts) == [value(1), value(0)]

    asyncio.run(run())


@pytest.mark.parametrize("way", ["finish", "store"])
def test_a_done_chord_is_opened_anew(redis_server: RedisServer, redis_url: str, way: str) -> None:
    chord = NewChord(id="c", size=2, body=BODY, expires=600.0)
    opened(redis_url, chord)

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            a, b, c = await lent(broker, "a", "b", "c")
            assert await store.join([part(0), part(1)], token="t") == ["c"]
            assert await store.close_chord(Closing("c", "t"))
            if way == "store":
                await store.open_chords([chord])
            else:
                again = Completion(settlement=Accept(a), opens=[chord])
                closing = Completion(settlement=Accept(b), closes=Closing("c", "t"))
                assert await broker.finish([again, closing]) == [Verdict.DONE, Verdict.FENCED]
            assert await broker.finish([ended(c, part(1), part(0))]) == [Verdict.COMPLETES]
            assert redis_server.command("SCARD", f"{ROOT}c.d") == 2

    asyncio.run(run())


@pytest.mark.parametrize("expires", [600.0, None])
def test_early_members_live_as_long_as_their_chord(
    redis_server: RedisServer, redis_url: str, expires: float | None
) -> None:
    async def run() -> None:
        async with servers(redis_url) as (_, store):
            await store.join([part(0, expires=60.0)], token="t")
            await store.open_chords([NewChord(id="c", size=2, expires=expires)])

    asyncio.run(run())
    lives = {redis_server.command("TTL", key) for key in redis_server.command("KEYS", f"{ROOT}c*")}
    lives.add(redis_server.command("TTL", "celeriac:chord:c"))
    assert lives <= ({-1} if expires is None else {*range(580, 601)})


# ---------------------------------------------------------------------------------------------------------- the token


def test_a_token_is_free_when_its_delivery_is_over(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url, chord_token=3600.0) as (broker, store):
            a, b, c, d = await lent(broker, "a", "b", "c", "d")
            assert await broker.finish([ended(a, part(0))]) == [Verdict.COMPLETES]
            assert redis_server.command("GET", f"{ROOT}c.c").decode() == a.token
            assert await broker.finish([ended(b, part(0))]) == [Verdict.DONE], "its holder is leased"
            await broker.settle([Release(a)])
            assert await broker.finish([ended(c, part(0))]) == [Verdict.COMPLETES]
            assert await store.gather("c", token=a.token) is None
            await broker.settle([Accept(c)])
            held = Completion(settlement=Hold(d), parts=[part(0)])
            assert await broker.finish([held]) == [Verdict.COMPLETES]
            assert await store.gather("c", token=d.token) is not None

    asyncio.run(run())


def test_a_token_lasts_its_time_where_no_deliveries_are(redis_server: RedisServer, redis_url: str) -> None:
    """A result store on a server of its own cannot tell whose delivery is over."""
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url, chord_token=0.2) as (_, store), servers(redis_url) as (_, patient):
            token = f"celeriac:elsewhere:{1:060d}"
            assert await patient.join([part(0)], token=token) == ["c"]
            assert await store.join([part(0)], token="t") == []
            assert await patient.join([part(0)], token=token) == ["c"], "its own"
            assert await store.gather("c", token=token) is not None, "its own, and shorter now"
            await eventually(lambda: not redis_server.command("EXISTS", f"{ROOT}c.c"))
            assert await store.join([part(0)], token="t") == ["c"]
            assert not await patient.close_chord(Closing("c", token))

    asyncio.run(run())


def test_an_answer_that_got_lost_is_given_again(redis_server: RedisServer, redis_url: str, redis_proxy: Proxy) -> None:
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_server.url(port=redis_proxy.port)) as (broker, _):
            (a,) = await lent(broker, "a")
            done = ended(a, part(0), publish=[message("next", "next")])
            redis_proxy.cut_reply()
            with pytest.raises(OperationalError):
                await broker.finish([done])
            assert await broker.finish([done]) == [Verdict.COMPLETES]
            assert redis_server.command("LLEN", "next") == 1, "follow-ups are sent once"
            closing = Completion(settlement=Accept(a), closes=Closing("c", a.token), publish=[message("body", "next")])
            redis_proxy.cut_reply()
            with pytest.raises(OperationalError):
                await broker.finish([closing])
            assert await broker.finish([closing]) == [Verdict.FENCED]
            assert redis_server.command("LLEN", "next") == 2, "the body is sent once"

    asyncio.run(run())


# -------------------------------------------------------------------------------------------------------- the sweeper


def test_the_sweeper_finds_what_a_dead_one_completed(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=2, body=BODY, shape=SHAPE, expires=600.0))

    async def run() -> None:
        async with servers(redis_url, "dead", lease=0.05) as (broker, _):
            (a,) = await lent(broker, "a")
            done = [ended(a, part(0), part(1))]
            assert await broker.finish(done) == [Verdict.COMPLETES]
        async with servers(redis_url, "living") as (broker, store):
            assert await store.overdue(token="s") == []
            due(redis_server, "c")
            assert await store.overdue(token="s") == [], "its delivery is leased"
            await eventually(lambda: redis_server.command("ZCARD", "unacked_index") == 1)
            while redis_server.command("ZCARD", "unacked_index"):
                await broker.maintain()
            due(redis_server, "c")
            (found,) = await store.overdue(token="s")
            assert found == Gathered(chord="c", token="s", parts=[value(0), value(1)], body=BODY, shape=SHAPE)
            assert await store.overdue(token="s2") == []
            closing = Completion(settlement=Hold(), closes=Closing("c", "s"), publish=[message("body", "next")])
            assert await broker.finish([closing, closing]) == [Verdict.DONE, Verdict.FENCED]
            assert redis_server.command("LLEN", "next") == 1
            assert redis_server.command("EXISTS", "celeriac:chords", "celeriac:chord:c") == 0

    asyncio.run(run())


def test_the_sweeper_is_cheap_and_forgets_what_is_gone(redis_server: RedisServer, redis_url: str) -> None:
    command = redis_server.command
    names = [f"c-{number}" for number in range(250)]
    opened(redis_url, *(NewChord(id=name, size=2, body=BODY, expires=600.0) for name in names))
    opened(redis_url, *(NewChord(id=name, size=2, body=BODY, expires=600.0) for name in ("gone", "done", "spoiled")))

    async def run() -> None:
        async with servers(redis_url) as (_, store):
            await store.join([part(0), part(1, "gone")], token="t")
            command("DEL", *(ROOT + "gone" + end for end in (".s", ".j", ".d")))
            command("SET", f"{ROOT}done.c", "done")
            command("SET", f"{ROOT}spoiled.j", "x")
            command("CONFIG", "RESETSTAT")
            assert await store.overdue(token="s") == []
            assert "cmdstat_zadd" not in redis_server.info("commandstats")
            due(redis_server, *names, "gone", "done", "spoiled")
            assert await store.overdue(token="s") == []
            left = command("ZRANGE", "celeriac:chords", 0, -1, "WITHSCORES")
            assert {name.decode() for name in left[::2]} == {*names, "c", "spoiled"}
            now = float(b".".join(command("TIME")))
            looks = [float(score) - now for name, score in zip(left[::2], left[1::2], strict=True) if name != b"c"]
            assert all(CHORD_LOOK - 10 < seconds <= CHORD_LOOK for seconds in looks)
            assert command("EXISTS", "celeriac:chord:gone", "celeriac:chord:done") == 0

    asyncio.run(run())


def test_a_body_lives_as_long_as_celery_lets_its_chord_live(redis_server: RedisServer, redis_url: str) -> None:
    """Celery's workers renew their keys and not ours."""
    opened(redis_url, NewChord(id="c", size=2, body=BODY, expires=60.0))
    opened(redis_url, NewChord(id="ever", size=2, body=BODY, expires=60.0))
    redis_server.command("EXPIRE", f"{ROOT}c.s", 600)
    redis_server.command("PERSIST", f"{ROOT}ever.s")
    due(redis_server, "c", "ever")

    async def run() -> None:
        async with servers(redis_url) as (_, store):
            assert await store.overdue(token="s") == []

    asyncio.run(run())
    assert redis_server.command("TTL", "celeriac:chord:c") > 500
    assert redis_server.command("TTL", "celeriac:chord:ever") == -1


def test_a_hold_without_a_delivery_completes_nothing(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=2, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            redis_server.command("ZADD", "celeriac:chords", 2e9, "c")
            held = Completion(settlement=Hold(), parts=[part(0), part(1)], others=[other("o")])
            assert await broker.finish([held]) == [Verdict.DONE]
            assert redis_server.command("EXISTS", f"{ROOT}c.c") == 0
            assert float(redis_server.command("ZSCORE", "celeriac:chords", "c")) < 2e9, "its look is soon"
            due(redis_server, "c")
            assert [each.chord for each in await store.overdue(token="s")] == ["c"]

    asyncio.run(run())


# --------------------------------------------------------------------------------------------------- wrong and full


@pytest.mark.parametrize("end", [".s", ".t", ".j", ".d", ".c", "", "our body", "chords"])
def test_a_wrong_type_stops_what_needs_it_as_a_whole(redis_server: RedisServer, redis_url: str, end: str) -> None:
    command = redis_server.command
    names = {"our body": "celeriac:chord:c", "chords": "celeriac:chords"}
    key = names.get(end, f"{ROOT}c{end}")
    chord = NewChord(id="c", size=3, body=BODY, shape=SHAPE, expires=600.0)

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            a, b, c, d = await lent(broker, "a", "b", "c", "d")
            await store.open_chords([chord])
            await store.join([part(0)], token="t")
            await store.grow_chord("c", 1)
            command("SET", f"{ROOT}c.c", "t")
            saved = command("DUMP", key)
            command("DEL", key)
            command("XADD", key, "*", "a", "b")
            before = dump(redis_server)
            stepwise = [
                ended(a, part(1), publish=[message("n", "next")]),
                ended(b, opens=[chord]),
                Completion(settlement=Hold(c), closes=Closing("c", "t"), publish=[message("n", "next")]),
                Completion(settlement=DeadLetter(delivery=d, reason=DeadReason.FAILED), parts=[part(2)]),
            ]
            assert await broker.finish(stepwise) == [Verdict.STEPWISE] * 4
            acts: Sequence[Callable[[], Any]] = (
                lambda: store.join([part(1), part(1, "other")], token="t"),
                lambda: store.open_chords([NewChord(id="other", size=1), chord]),
                lambda: store.gather("c", token="t"),
                lambda: store.close_chord(Closing("c", "t")),
            )
            for act in acts:
                with pytest.raises(OperationalError, match=f'WRONGTYPE the key "{key}"'):
                    await act()
            assert dump(redis_server) == before, "nothing is written half"
            if end != "chords":
                due(redis_server, "c")
                assert await store.overdue(token="s") == []
                done = [ended(a, part(0, "fine")), ended(b, part(1)), Completion(settlement=Accept(c))]
                assert await broker.finish(done) == [Verdict.DONE, Verdict.STEPWISE, Verdict.DONE]
            command("DEL", key)
            if saved:
                command("RESTORE", key, 0, saved)
            assert await broker.finish([ended(d, part(1), publish=[message("n", "next")])]) == [Verdict.DONE]

    asyncio.run(run())


def test_a_wrong_unacked_index(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))

    async def run() -> None:
        async with servers(redis_url) as (broker, store):
            (a,) = await lent(broker, "a")
            saved = redis_server.command("DUMP", "unacked_index")
            redis_server.command("SET", "unacked_index", "x")
            before = dump(redis_server)
            with pytest.raises(OperationalError, match='WRONGTYPE the key "unacked_index"'):
                await broker.finish([ended(a, part(0))])
            assert dump(redis_server) == before
            assert await store.join([part(0)], token=a.token) == ["c"], "as on a server without deliveries"
            assert await store.join([part(0)], token="t") == []
            redis_server.command("DEL", "unacked_index")
            redis_server.command("RESTORE", "unacked_index", 0, saved)

    asyncio.run(run())


@pytest.mark.parametrize("speaks", ["RESP3", "RESP2"])
def test_a_full_server_lets_chords_drain(make_redis: MakeRedis, monkeypatch: pytest.MonkeyPatch, speaks: str) -> None:
    """Through RESP2 the version is not known, so scripts are not flagged: a removal has to come first."""
    server = make_redis()
    url = server.url()
    if speaks == "RESP2":
        send = Wire.send
        monkeypatch.setattr(
            Wire,
            "send",
            lambda wire, *words, **more: send(wire, words[0].replace("HELLO", "HELLX"), *words[1:], **more),
        )
    opened(url, NewChord(id="c", size=3, body=BODY, shape=SHAPE, expires=600.0))

    async def run() -> None:
        async with servers(url) as (broker, store):
            a, b = await lent(broker, "a", "b")
            server.command("CONFIG", "SET", "maxmemory", 1, "maxmemory-policy", "noeviction")
            with pytest.raises(OperationalError, match="memory is full"):
                await store.open_chords([NewChord(id="more", size=1)])
            done = [ended(a, part(0), publish=[message("n", "next")]), ended(b, part(1), part(2))]
            assert await broker.finish(done) == [Verdict.DONE, Verdict.COMPLETES]
            found = await store.gather("c", token=b.token)
            assert found == Gathered(
                chord="c", token=b.token, parts=[value(0), value(1), value(2)], body=BODY, shape=SHAPE
            )
            closing = Completion(settlement=Accept(b), closes=Closing("c", b.token), publish=[message("body", "next")])
            assert await broker.finish([closing]) == [Verdict.DONE]
            held = Completion(settlement=Hold(), others=[other("o")])
            assert await broker.finish([held]) == [Verdict.DONE]
            assert await store.join([part(0, "d")], token="t") == []

    asyncio.run(run())
    server.close()


def test_grow_is_no_trap(redis_server: RedisServer, redis_url: str) -> None:
    command = redis_server.command
    reader = redis.reader(redis_url, AdapterOptions())
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))
    reader.grow_chord("c", 2, timeout=30.0)
    assert command("GET", f"{ROOT}c.t") == b"2"
    assert command("TTL", f"{ROOT}c.t") > 590, "it goes with the chord"
    command("SET", f"{ROOT}done.c", "done")
    reader.grow_chord("done", 1, timeout=30.0)
    assert command("EXISTS", f"{ROOT}done.t") == 0, "nobody would ever remove it"
    command("SET", f"{ROOT}c.t", "many")
    with pytest.raises(OperationalError, match="not an integer"):
        reader.grow_chord("c", 1, timeout=5)
    reader.close()


def test_a_number_that_is_none_is_a_wrong_type(redis_server: RedisServer, redis_url: str) -> None:
    opened(redis_url, NewChord(id="c", size=1, body=BODY, expires=600.0))
    redis_server.command("SET", f"{ROOT}c.t", "many")

    async def run() -> None:
        async with servers(redis_url) as (broker, _):
            (a,) = await lent(broker, "a")
            before = dump(redis_server)
            assert await broker.finish([ended(a, part(0, grows=1))]) == [Verdict.STEPWISE]
            assert dump(redis_server) == before

    asyncio.run(run())
