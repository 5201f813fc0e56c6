"""Chords that Celery and we open, join and complete together: real Celery against our reader, broker and store."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from celeriac.brokers import redis
from celeriac.model.chord import Closing, Gathered, NewChord
from celeriac.model.settle import Accept, Completion, Verdict
from celeriac.ports import CHORD_DONE, AdapterOptions
from tests.integration.redis_chords import BODY, ROOT, SHAPE, ended, lent, message, opened, part, servers, value
from tests.servers import RedisServer

PEER = """
import os, sys, json
from celery import Celery
from celery.app.task import Context
prefix = {"global_keyprefix": os.environ["PREFIX"]}
app = Celery("peer", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(task_default_queue="peer", broker_transport_options=prefix, result_expires=600,
                result_backend_transport_options={**prefix, "result_chord_ordered": os.environ["ORDERED"] == "1"})
@app.task(name="peer.total")
def total(numbers): ...
body = total.s().set(task_id="body", queue="peer")
def join(chord, member, index, result=1):
    request = Context(id=f"m-{member}", group=chord, group_index=index, chord=dict(body))
    app.backend.on_chord_part_return(request, "SUCCESS", result)
"""


class Peer:
    """Runs Python with real Celery in it."""

    def __init__(self, python: Path, url: str, prefix: str, ordered: bool) -> None:
        self._python = python
        self._environment = {"URL": url, "PREFIX": prefix, "ORDERED": str(int(ordered)), "PATH": "/usr/bin:/bin"}

    def run(self, code: str) -> str:
        """Output of a program that may use ``app``, ``body`` and ``join``."""
        words = [str(self._python), "-c", f"{PEER}\n{code}"]
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["", "pre:", "pre"], ids=["plain", "prefixed", "underscored"])
def prefix(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture(params=[True, False], ids=["by place", "as they come"])
def ordered(request: pytest.FixtureRequest) -> bool:
    answer: bool = request.param
    return answer


@pytest.fixture
def options(prefix: str, ordered: bool) -> dict[str, Any]:
    return {"key_prefix": prefix, "transport": {"result_chord_ordered": ordered}}


@pytest.fixture
def root(prefix: str) -> str:
    return ("pre_" if prefix == "pre" else prefix) + ROOT


@pytest.fixture
def peer(celery_python: Path, redis_url: str, prefix: str, ordered: bool) -> Peer:
    return Peer(celery_python, redis_url, prefix, ordered)


def contents(server: RedisServer, key: str, ordered: bool) -> dict[str, Any]:
    """What is under Celery's keys of a chord, with the rough life time of each."""
    command = server.command
    read = {
        ".s": command("GET", f"{key}.s"),
        ".t": command("GET", f"{key}.t"),
        ".j": command("ZRANGE", f"{key}.j", 0, -1, "WITHSCORES") if ordered else command("LRANGE", f"{key}.j", 0, -1),
        ".d": sorted(command("SMEMBERS", f"{key}.d")),
    }
    lives = {end: command("TTL", f"{key}{end}") > 590 for end in (".s", ".j", ".d", "")}
    return {**read, "lives": lives, "keys": {name[len(key) :] for name in command("KEYS", f"{key}*")}}


def test_the_keys_are_celerys(
    peer: Peer, redis_server: RedisServer, redis_url: str, options: dict[str, Any], root: str, ordered: bool
) -> None:
    peer.run("""
app.backend.set_chord_size("theirs", 4)
app.backend._set_chord_key(app.backend.get_key_for_group("theirs"), '{"result": [["c", null], []]}')
app.backend.add_to_chord("theirs", None)
for member, index in ((1, 11), (2, 2), (None, None), (1, 11), (1, 0)):
    join("theirs", member, index, member)
""")
    chord = NewChord(id="ours", size=4, body=BODY, shape=SHAPE, expires=600.0)
    opened(redis_url, chord, **options)

    async def run() -> None:
        async with servers(redis_url, **options) as (broker, store):
            await store.grow_chord("ours", 1)
            a, b, c = await lent(broker, "a", "b", "c")
            both = ended(
                a,
                part(11, "ours", id="m-1", value=value(1, 1)),
                part(2, "ours", id="m-2", value=value(2, 2)),
            )
            without = ended(b, part(None, "ours", value=value(None, None)))
            again = ended(c, part(11, "ours", id="m-1", value=value(1, "other")))
            assert await broker.finish([both, without, again]) == [Verdict.DONE] * 3

    asyncio.run(run())
    ours, theirs = (contents(redis_server, root + name, ordered) for name in ("ours", "theirs"))
    # The same task at two places, with the same result, is one to Celery; to us it would be two.
    theirs[".d"].remove(b"m-1:0")
    if ordered:
        assert theirs[".j"][:2] == [value(1, 1), b"0"]
        ours[".j"], theirs[".j"] = ours[".j"][::2], [*theirs[".j"][2:-2:2], value(1, 1), value(None, None)]
    else:
        theirs[".j"].pop()
    assert ours == theirs
    if ordered:
        assert ours[".j"] == [value(2, 2), value(1, 1), value(None, None)]


def test_celery_completes_what_we_opened(
    peer: Peer, redis_server: RedisServer, redis_url: str, options: dict[str, Any], root: str, prefix: str
) -> None:
    opened(redis_url, NewChord(id="c", size=2, body=BODY, expires=600.0), **options)
    command = redis_server.command

    async def run() -> None:
        async with servers(redis_url, **options) as (broker, store):
            a, late = await lent(broker, "a", "late")
            assert await broker.finish([ended(a, part(1, value=value(1, "ours")))]) == [Verdict.DONE]
            await asyncio.to_thread(peer.run, 'join("c", 0, 0, "theirs"); join("c", 0, 0, "again")')
            (raw,) = command("LRANGE", f"{prefix}peer", 0, -1)
            assert json.loads(raw)["headers"]["id"] == "body"
            assert "'theirs', 'ours'" in raw.decode() or "'ours', 'theirs'" in raw.decode()
            assert command("GET", f"{root}c.c") == b"done"
            assert await broker.finish([ended(late, part(1))]) == [Verdict.DONE]
            assert command("EXISTS", f"{root}c.j", f"{root}c.s", f"{root}c.d") == 0
            command("ZADD", f"{prefix}celeriac:chords", "XX", 1, "c")
            assert await store.overdue(token="s") == []
            assert command("EXISTS", f"{prefix}celeriac:chords", f"{prefix}celeriac:chord:c") == 0

    asyncio.run(run())


def test_we_complete_what_celery_opened(
    peer: Peer, redis_server: RedisServer, redis_url: str, options: dict[str, Any], root: str, prefix: str
) -> None:
    peer.run('app.backend.set_chord_size("c", 3); join("c", 0, 0)')
    command = redis_server.command

    async def run() -> None:
        async with servers(redis_url, **options) as (broker, store):
            a, b, c = await lent(broker, "a", "b", "c")
            assert await broker.finish([ended(a, part(1, body=b""))]) == [Verdict.DONE]
            assert command("EXISTS", f"{prefix}celeriac:chords", f"{prefix}celeriac:chord:c") == 0
            assert await broker.finish([ended(b, part(1)), ended(c, part(2))]) == [Verdict.DONE, Verdict.COMPLETES]
            assert command("TTL", f"{prefix}celeriac:chord:c") > 590
            token = c.token
            await asyncio.to_thread(peer.run, 'join("c", 0, 0)')
            assert command("EXISTS", f"{prefix}peer") == 0, "its token is ours"
            found = await store.gather("c", token=token)
            assert found == Gathered(chord="c", token=token, parts=[value(0), value(1), value(2)], body=BODY)
            closing = Completion(settlement=Accept(c), closes=Closing("c", token), publish=[message("body", "peer")])
            assert await broker.finish([closing]) == [Verdict.DONE]
            await asyncio.to_thread(peer.run, 'join("c", 0, 0); join("c", 9, 9)')
            assert command("LLEN", f"{prefix}peer") == 1
            assert command("GET", f"{root}c.c") == b"done"
            assert CHORD_DONE - 60 < command("TTL", f"{root}c.c") <= CHORD_DONE
            assert command("KEYS", f"{root}c*") == [f"{root}c.c".encode()]

    asyncio.run(run())


def test_saved_groups_are_celerys(peer: Peer, redis_url: str, options: dict[str, Any]) -> None:
    reader = redis.reader(redis_url, AdapterOptions(**options))
    peer.run("""
from celery.result import AsyncResult, GroupResult
GroupResult("theirs", [AsyncResult("a"), AsyncResult("b")]).save()
""")
    saved = reader.load_group("theirs", timeout=30.0)
    assert saved is not None
    reader.save_group("ours", saved.replace(b"theirs", b"ours"), expires=60, timeout=30.0)
    read = peer.run("""
from celery.result import GroupResult
print([result.id for result in GroupResult.restore("ours", app=app)])
""")
    assert read.strip() == "['a', 'b']"
    reader.close()
