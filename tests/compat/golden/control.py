"""Pidbox requests as published, and the replies: `control.json`."""

# mypy: ignore-errors

import base64
import json
from collections.abc import Callable
from uuid import uuid4

from tests.compat.golden.app import add, app, sleep
from tests.compat.golden.peer import base64_body, client, listening, text, wait_for, worker


def control() -> dict:
    """Pidbox requests as published, and each worker's reply to the same request."""
    with worker():
        running = [sleep.apply_async((30,), queue="work").id for _ in range(2)]
        scheduled = add.apply_async((2, 3), countdown=3600, queue="work")
        add.apply_async((2, 3), queue="work")
        inspect, task_id = app.control.inspect(timeout=0.3), str(uuid4())
        wait_for(lambda: len((inspect.active() or {}).get("w1@host", [])) == 2, "running tasks")
        calls = {name: getattr(inspect, name) for name in INSPECTIONS}
        calls |= {
            "query_task": lambda: inspect.query_task([scheduled.id, "unknown"]),
            "ping_destination": lambda: app.control.ping(["w1@host"], timeout=0.3),
            "ping_pattern": lambda: app.control.broadcast(
                "ping", pattern="w*", matcher="glob", reply=True, timeout=0.3
            ),
            "revoke": lambda: app.control.revoke(task_id, reply=True, timeout=0.3),
            "revoke_terminate": lambda: app.control.revoke([task_id], terminate=True, signal="SIGKILL", reply=True),
            "rate_limit": lambda: app.control.rate_limit("golden.add", "10/s", reply=True, timeout=0.3),
            "time_limit": lambda: app.control.time_limit("golden.add", soft=5, hard=9, reply=True, timeout=0.3),
            "add_consumer": lambda: app.control.add_consumer("extra", reply=True, timeout=0.3),
            "cancel_consumer": lambda: app.control.cancel_consumer("extra", reply=True, timeout=0.3),
            "pool_grow": lambda: app.control.pool_grow(1, reply=True, timeout=0.3),
            "pool_shrink": lambda: app.control.pool_shrink(1, reply=True, timeout=0.3),
            "enable_events": lambda: app.control.enable_events(reply=True, timeout=0.3),
            "disable_events": lambda: app.control.disable_events(reply=True, timeout=0.3),
            "unknown_method": lambda: app.control.broadcast("nonsense", reply=True, timeout=0.3),
            "bad_arguments": lambda: app.control.broadcast("rate_limit", {"a": 1}, reply=True, timeout=0.3),
            "no_reply": lambda: app.control.broadcast("heartbeat"),
            "shutdown": lambda: app.control.shutdown(reply=True, timeout=0.3),
        }
        exchanged = {name: request_and_reply(call) for name, call in calls.items() if name != "shutdown"}
        app.control.revoke(running, terminate=True)
        exchanged["shutdown"] = request_and_reply(calls["shutdown"], replies=False)
    with listening("/0.celery.pidbox") as heard, worker():
        wait_for(lambda: any(b'"hello"' in base64_body(raw) for _, raw in heard), "hello of a starting worker")
        hello = next(text(raw) for _, raw in heard if b'"hello"' in base64_body(raw))
    return {"exchanges": exchanged, "hello_of_a_starting_worker": hello}


INSPECTIONS = [
    "ping",
    "active",
    "reserved",
    "scheduled",
    "revoked",
    "registered",
    "stats",
    "active_queues",
    "clock",
    "conf",
    "report",
]


def request_and_reply(call: Callable[[], object], replies: bool = True) -> dict:
    """Publishes the request by Celery's client, and once more for a reply queue of our own, to see the raw reply."""
    with listening("/0.celery.pidbox") as heard:
        call()
        channel, raw = wait_for(lambda: heard[0] if heard else None, "the request")
    found = {"channel": channel, "request": text(raw), "replies": []}
    envelope = json.loads(raw)
    body = json.loads(base64_body(raw))
    if not replies or not body.get("reply_to"):
        return found
    r, oid = client(), str(uuid4())
    queue = f"{oid}.reply.celery.pidbox"
    r.sadd("_kombu.binding.reply.celery.pidbox", f"{oid}\x06\x16\x06\x16{queue}")
    body["reply_to"]["routing_key"] = oid
    envelope["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    r.publish(channel, json.dumps(envelope))
    wait_for(lambda: r.llen(queue), f"a reply to {body['method']}")
    found["replies"] = [text(entry) for entry in r.lrange(queue, 0, -1)]
    r.delete(queue)
    return found
