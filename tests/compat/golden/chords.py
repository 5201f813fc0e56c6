"""The keys of a chord at each stage: `chords.json`."""

# mypy: ignore-errors

import time

from celery import chord

from tests.compat.golden.app import add, echo, fail
from tests.compat.golden.peer import client, dumped, queued, wait_for, worker


def chords() -> dict:
    """Keys of a chord at each stage: sent, half done, done (body sent), failed."""

    body = echo.s("sum").set(queue="parked")
    with worker():
        chord([add.s(1, 2).set(queue="work"), add.s(3, 4).set(queue="never")], body)()
        wait_for(lambda: client().keys("*.j"), "one part of the chord")
        half = {"keys": other_keys_of_chord(), "messages": queued()}
        client().flushdb()
        chord([add.s(1, 2).set(queue="work"), add.s(3, 4).set(queue="work")], body)()
        wait_for(lambda: client().llen("parked"), "the body")
        time.sleep(0.3)
        done = {"keys": other_keys_of_chord(), "messages": queued()}
        client().flushdb()
        failing = chord([add.s(1, 2).set(queue="work"), fail.s().set(queue="work")], body)
        result = failing.apply_async()
        wait_for(lambda: client().get(f"celery-task-meta-{result.id}"), "the failed body")
        time.sleep(0.3)
        failed = {"keys": other_keys_of_chord(), "body": result.id, "messages": queued()}
    client().flushdb()
    chord([add.s(1, 2), add.s(3, 4)], echo.s("sum"))()
    return {"sent": {"keys": other_keys_of_chord(), "messages": queued()}, "half": half, "done": done, "failed": failed}


def other_keys_of_chord() -> dict:
    return {key.decode(): dumped(key) for key in sorted(client().keys("celery-task*"))}
