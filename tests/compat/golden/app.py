"""The tasks that `capture.py` has real Celery send and run. Knows nothing of Celeriac.

Imported by both sides of the capture: the producer in `capture.py` and the workers it starts (`celery -A app`).
"""

# mypy: ignore-errors

import os
import signal
import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from celery import Celery
from celery.exceptions import Ignore, Reject

URL = os.environ["GOLDEN_URL"]

SERIALIZER = os.environ.get("GOLDEN_RESULT_SERIALIZER", "json")

app = Celery("golden", broker=URL, backend=URL)
app.conf.update(
    accept_content=["json", "yaml", "msgpack"],
    result_accept_content=["json", SERIALIZER],
    task_track_started=True,
    task_send_sent_event=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    result_extended=os.environ.get("GOLDEN_EXTENDED") == "1",
    result_serializer=SERIALIZER,
    broker_connection_retry_on_startup=True,
)


class Refused(Exception):
    """An exception class that only this module defines."""


@app.task(name="golden.add")
def add(x, y):
    return x + y


@app.task(name="golden.echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="golden.failed")
def failed(task_id):
    """One argument: Celery sends such an errback as a task with the failed id, and calls wider ones in the worker."""
    return task_id


@app.task(name="golden.typed")
def typed():
    return {
        "datetime": datetime(2026, 11, 22, 8, 6, 45, 739516, tzinfo=UTC),
        "decimal": Decimal("1.50"),
        "uuid": UUID(int=5),
        "bytes": b"text",
        "base64": b"\xff\x00",
    }


@app.task(name="golden.fail")
def fail(*args):
    raise ValueError("bad input", 42)


@app.task(name="golden.refuse")
def refuse():
    raise Refused("no", UUID(int=7), object)


@app.task(name="golden.retry", bind=True, max_retries=3)
def retry(self, countdown=30):
    try:
        raise KeyError("missing")
    except KeyError as error:
        raise self.retry(exc=error, countdown=countdown) from error


@app.task(name="golden.retries_exhausted", bind=True, max_retries=0)
def retries_exhausted(self):
    raise self.retry(countdown=0)


@app.task(name="golden.progress", bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 3, "total": 10})
    time.sleep(2)


@app.task(name="golden.sleep")
def sleep(seconds):
    time.sleep(seconds)


@app.task(name="golden.soft", soft_time_limit=0.5)
def soft():
    time.sleep(5)


@app.task(name="golden.hard", time_limit=1)
def hard():
    time.sleep(5)


@app.task(name="golden.die", acks_late=True, reject_on_worker_lost=False)
def die():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="golden.ignore")
def ignore():
    raise Ignore


@app.task(name="golden.reject")
def reject():
    raise Reject("unwanted", requeue=False)


@app.task(name="golden.replace", bind=True)
def replace(self):
    return self.replace(add.si(20, 22))


@app.task(name="golden.spawn", bind=True)
def spawn(self):
    """Has children: their ids are stored with its result."""
    add.apply_async((1, 1), queue="parked")
    (add.si(2, 2) | add.si(3, 3)).apply_async(queue="parked")
