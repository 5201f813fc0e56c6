"""Celery protocol 2 messages on kombu's Redis list, made by neither peer, consumed by both: a queue filled quickly."""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.resp import Redis  # its packages are not in the peers' venvs

QUEUE = "celery"
BATCH = 500
CONSTANT_HEADERS: dict[str, object] = {
    "lang": "py",
    "shadow": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "origin": "bench",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`count` calls of one task. Every `mark_every`-th notes its start; the i-th is due at `due + i × due_step`."""

    task: str
    count: int
    argument: str | int | None = None
    mark_every: int = 0
    due: float | None = None
    due_step: float = 0.0

    def mark_of(self, index: int) -> int | None:
        return index if self.mark_every and index % self.mark_every == 0 else None

    def due_of(self, index: int) -> float | None:
        return None if self.due is None else self.due + index * self.due_step

    @property
    def marks(self) -> int:
        return -(-self.count // self.mark_every) if self.mark_every else 0


def fill(redis: "Redis", load: Load) -> None:
    """Oldest first: consumers take from the right end."""
    batch: list[str] = []
    for each in envelopes(load):
        batch.append(json.dumps(each))
        if len(batch) == BATCH:
            redis.call("LPUSH", QUEUE, *batch)
            batch.clear()
    if batch:
        redis.call("LPUSH", QUEUE, *batch)


def envelopes(load: Load) -> Iterator[dict[str, Any]]:
    for index in range(load.count):
        due = load.due_of(index)
        eta = None if due is None else datetime.fromtimestamp(due, UTC).isoformat()
        yield envelope(load.task, _id(), load.argument, load.mark_of(index), eta)


def envelope(task: str, task_id: str, argument: str | int | None, mark: int | None, eta: str | None) -> dict[str, Any]:
    args = [] if argument is None else [argument]
    kwargs = {} if mark is None else {"mark": mark}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers = {
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "eta": eta,
        "argsrepr": repr(args)[:100],
        "kwargsrepr": repr(kwargs),
    }
    properties = {
        "correlation_id": task_id,
        "reply_to": "bench",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": _id(),
    }
    return {
        "body": base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": CONSTANT_HEADERS | headers,
        "properties": properties,
    }


def _id() -> str:
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
