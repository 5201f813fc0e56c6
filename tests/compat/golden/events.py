"""Every kind of event, as published: `events.json`."""

# mypy: ignore-errors

import signal
import time
from datetime import UTC, datetime, timedelta

from tests.compat.golden.app import add, app, fail, reject, retry, sleep
from tests.compat.golden.peer import listening, record, text, worker


def events() -> dict:
    """Every kind of event, as published."""
    with listening("/0.celeryev/*") as heard:
        with worker("-E") as process:
            add.apply_async((2, 3), queue="work")
            fail.apply_async((1,), queue="work")
            retry.apply_async((1,), queue="work")
            reject.apply_async(queue="work")
            add.apply_async((2, 3), queue="work", expires=datetime.now(UTC) - timedelta(days=1))
            task = sleep.apply_async((20,), queue="work")
            record(task.id, "STARTED")
            app.control.revoke(task.id, terminate=True)
            record(task.id, "REVOKED")
            time.sleep(3)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        time.sleep(0.2)
    return {"published": [{"channel": channel, "raw": text(raw)} for channel, raw in heard]}
