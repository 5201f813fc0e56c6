"""What the tests of chords on Redis have in common: members, deliveries that end, the state of the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celeriac.brokers import redis
from celeriac.brokers.redis.queues import RedisBroker
from celeriac.brokers.redis.results import RedisStore
from celeriac.model.chord import NewChord, Part
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, StoredResult
from celeriac.ports import AdapterOptions
from tests.servers import RedisServer

__all__ = [
    "BODY",
    "ROOT",
    "SHAPE",
    "due",
    "dump",
    "ended",
    "lent",
    "message",
    "opened",
    "other",
    "part",
    "servers",
    "value",
]

BODY = b'{"task": "peer.total", "args": [], "kwargs": {}, "options": {"task_id": "body", "queue": "peer"}}'
SHAPE = b'{"result": [["c", null], []]}'
SUCCESS = b'{"status": "SUCCESS", "result": 1}'
ROOT = "celery-taskset-meta-"


def value(member: object, result: object = 1) -> bytes:
    """As Celery's workers write it."""
    return json.dumps([1, f"m-{member}", "SUCCESS", result]).encode()


def part(index: int | None, chord: str = "c", *, body: bytes = BODY, **fields: Any) -> Part:
    known = {"id": f"m-{index}", "value": value(index), "expires": 600.0, **fields}
    return Part(chord=chord, index=index, body=body, **known)


def message(task_id: str, queue: str = "q") -> Message:
    return Message(id=task_id, task="t", headers={"task": "t", "id": task_id}, body=b"[]", queue=queue)


def ended(delivery: Delivery, *parts: Part, **fields: Any) -> Completion:
    return Completion(
        settlement=Accept(delivery),
        parts=parts,
        result=StoredResult(delivery.message.id, SUCCESS, True, 60.0),
        **fields,
    )


@asynccontextmanager
async def servers(url: str, owner: str = "w1", **options: Any) -> AsyncIterator[tuple[RedisBroker, RedisStore]]:
    known = AdapterOptions(owner=owner, **options)
    broker, store = redis.broker(url, known), redis.store(url, known)
    await broker.open()
    await store.open()
    try:
        yield broker, store
    finally:
        await broker.close()
        await store.close()


def opened(url: str, *chords: NewChord, **options: Any) -> None:
    """Chords as a producer opens them."""
    reader = redis.reader(url, AdapterOptions(**options))
    reader.open_chords(chords, timeout=30.0)
    reader.close()


async def lent(broker: RedisBroker, *names: str) -> list[Delivery]:
    await broker.publish([message(name) for name in names])
    taken: list[Delivery] = []
    while len(taken) < len(names):
        taken += await broker.claim(["q"], limit=len(names), wait=1)
    return taken


def dump(server: RedisServer) -> dict[bytes, bytes]:
    """All that is on the server."""
    return {key: server.command("DUMP", key) for key in server.command("KEYS", "*")}


def due(server: RedisServer, *chords: str) -> None:
    """Time for the sweeper's next look."""
    for chord in chords:
        server.command("ZADD", "celeriac:chords", "XX", 1, chord)


def other(task_id: str) -> StoredResult:
    return StoredResult(task_id, b'{"status": "FAILURE"}', True, 60.0)
