"""What a worker holds, and what it gives back at its end: `unacked.json`."""

# mypy: ignore-errors

import json
import time
from collections.abc import Callable

from tests.compat.golden.app import add, retry, sleep
from tests.compat.golden.peer import client, dumped, queued, text, wait_for, worker


def unacked() -> dict:
    """Entries of `unacked` and `unacked_index` while a worker holds messages, and the same messages given back."""
    with worker() as process:
        running = held("running", lambda: sleep.apply_async((2,), queue="work"))
        eta = held("eta", lambda: add.apply_async((2, 3), countdown=3600, queue="work"))
        priority = held("priority", lambda: add.apply_async((2, 3), countdown=3600, priority=5, queue="work"))
        retried = held("retry", lambda: retry.apply_async((3600,), queue="work"), retries=1)
        bindings = {key.decode(): dumped(key) for key in sorted(client().keys("_kombu*"))}
        time.sleep(2)
        process.terminate()
        process.wait(30)
    entries = {"running": running, "eta": eta, "priority": priority, "retry": retried}
    return {"unacked": entries, "given_back_at_shutdown": queued(), "bindings_while_running": bindings}


def held(name: str, call: Callable[[], object], retries: int = 0) -> dict:
    r = client()
    before = set(r.hkeys("unacked"))
    call()

    def found() -> dict | None:
        for tag, raw in r.hgetall("unacked").items():
            if tag not in before and json.loads(raw)[0]["headers"]["retries"] == retries:
                return {"tag": tag.decode(), "score": r.zscore("unacked_index", tag), "raw": text(raw)}
        return None

    return wait_for(found, f"unacked entry of {name}")
