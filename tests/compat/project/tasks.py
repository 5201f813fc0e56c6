"""The app of both sides: real Celery where it is installed (the peer's venv), Celeriac elsewhere; the same tasks.

`celery -A tests.compat.project.tasks worker` and `celeriac -A …` find `app`, made from the environment that `fleet.py`
sets. `SIDE` says which one it is. What tasks do is written to a journal, one line each in one write.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, date, datetime
from datetime import time as day_time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

try:
    from celery import Celery
    from celery.exceptions import Ignore, Reject

    SIDE = "theirs"
except ImportError:
    from celeriac import Celery
    from celeriac.exceptions import Ignore, Reject

    SIDE = "ours"

__all__ = ["FOLDER", "SETTINGS", "SIDE", "VALUES", "Refused", "make_app"]

#: Environment variables: settings as JSON, and the folder of journal and gates.
SETTINGS = "COMPAT_SETTINGS"
FOLDER = "COMPAT_FOLDER"
#: Seconds between two tries. A worker of Celery writes RETRY when the next try is sent already, over the end of a
#: quick one.
SOON = 0.3

#: A value for every type tag of kombu's JSON.
VALUES: dict[str, Any] = {
    "datetime": datetime(2026, 11, 22, 8, 6, 45, 739516, tzinfo=UTC),
    "naive": datetime(2026, 11, 22, 8, 6, 45),
    "date": date(2026, 11, 22),
    "time": day_time(8, 6, 45),
    "decimal": Decimal("1.50"),
    "uuid": UUID(int=5),
    "bytes": b"text",
    "base64": b"\xff\x00",
    "nested": [{"deep": [Decimal(1), None, True, 1.5, "ü"]}],
    "big": 2**70,
}


class Refused(Exception):
    """A class that only this module defines."""


def folder() -> Path:
    return Path(os.environ[FOLDER])


def note(kind: str, *words: object) -> None:
    line = "\t".join([kind, SIDE, *map(str, words)]) + "\n"
    journal = os.open(folder() / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, line.encode())
    os.close(journal)


def wait_for_gate(name: str, seconds: float = 120.0) -> None:
    """Until the test opens the gate, a file of that name."""
    deadline = time.monotonic() + seconds
    while not (folder() / name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def add(x: Any, y: Any) -> Any:
    return x + y


def side() -> str:
    return SIDE


def hop(trail: list[str]) -> list[str]:
    return [*trail, SIDE]


def echo(*args: Any, **kwargs: Any) -> Any:
    return {"args": list(args), "kwargs": kwargs}


def check_values(**kwargs: Any) -> Any:
    """What arrived otherwise than it is here; returned unchanged, to see the way back too."""
    wrong = {name: repr(value) for name, value in kwargs.items() if value != VALUES[name]}
    return {"wrong": wrong, "values": kwargs}


def about(self: Any) -> dict[str, Any]:
    request = self.request
    names = "id root_id parent_id retries hostname timelimit ignore_result correlation_id group origin eta expires"
    found = {name: getattr(request, name) for name in names.split()}
    found["delivery_info"] = dict(request.delivery_info)
    found["headers"] = dict(request.headers or {})
    found["reply_to"] = isinstance(request.reply_to, str)
    return found | {"side": SIDE, "custom": request.get("x-custom")}


def fail(*args: Any) -> None:
    raise ValueError("bad input", *args)


def refuse() -> None:
    raise Refused("no", UUID(int=7))


def retry(self: Any, times: int) -> int:
    """Retries until it was tried that often."""
    note("retry", self.request.id, self.request.retries)
    if self.request.retries < times:
        raise self.retry(exc=KeyError("missing"), countdown=SOON, max_retries=10)
    return int(self.request.retries)


def exhausted(self: Any) -> None:
    raise self.retry(exc=KeyError("missing"), countdown=0, max_retries=0)


def exhausted_plain(self: Any) -> None:
    raise self.retry(countdown=0, max_retries=0)


def auto(self: Any) -> int:
    if self.request.retries < 2:
        raise ConnectionError("away")
    return int(self.request.retries)


def later(self: Any, gate: str) -> str:
    """In state RETRY until the countdown has passed and the test opens a second gate."""
    if self.request.retries == 0:
        raise self.retry(exc=KeyError("missing"), countdown=1.0)
    wait_for_gate(f"{gate}-again")
    return gate


def progress(self: Any, gate: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 3, "total": 10})
    wait_for_gate(gate)
    return "done"


def gated(self: Any, gate: str) -> str:
    note("start", self.request.id)
    wait_for_gate(gate)
    note("end", self.request.id)
    return SIDE


def work(self: Any, number: int, milliseconds: float = 5.0) -> int:
    note("start", self.request.id)
    time.sleep(milliseconds / 1000)
    note("end", self.request.id)
    return number


def soft() -> None:
    time.sleep(10)


def hard() -> None:
    time.sleep(10)


def spawn(self: Any) -> str:
    child: str = self.app.tasks["compat.add"].apply_async((20, 22), queue=self.request.delivery_info["routing_key"]).id
    return child


def ignored() -> int:
    note("ignored")
    return 1


def ignore() -> None:
    raise Ignore


def reject() -> None:
    raise Reject("unwanted", requeue=False)


def double(x: Any) -> Any:
    return x * 2


def ident(*args: Any) -> Any:
    return args[0] if len(args) == 1 else list(args)


def tsum(values: Any) -> Any:
    """The sum of numbers, however they are nested."""
    return sum(tsum(each) if isinstance(each, list) else each for each in values)


def stamps(self: Any, *args: Any) -> Any:
    return [sorted(self.request.stamped_headers or []), self.request.stamps]


def replaced(self: Any, sig: Any, *args: Any) -> Any:
    """Goes on as `sig`, whatever that is."""
    return self.replace(self.app.signature(sig))


def added(self: Any, x: Any) -> Any:
    """Adds one more to its chord."""
    self.add_to_chord(self.app.tasks["compat.add"].s(x, 100))
    return x


def callback(value: Any, mark: str) -> None:
    note("callback", mark, value)


def errback(task_id: str) -> None:
    """The old signature: Celery sends it as a task with the id."""
    note("errback", task_id)


def errback_new(request: Any, exc: Any, traceback: Any) -> None:
    """The newer one: called in the worker that ran the task."""
    note("errback_new", request.id, repr(exc))


_PLAIN: Any = (
    add,
    side,
    hop,
    echo,
    check_values,
    fail,
    refuse,
    ignore,
    reject,
    double,
    ident,
    tsum,
    callback,
    errback,
    errback_new,
)
_BOUND: Any = (stamps, replaced, added, about, retry, exhausted, exhausted_plain, later, progress, gated, work, spawn)


def make_app(**settings: Any) -> Any:
    """The app with these settings, all tasks registered."""
    app = Celery("compat", set_as_current=SIDE == "theirs", **settings)
    for body in _PLAIN:
        app.task(body, name=f"compat.{body.__name__}")
    for body in _BOUND:
        app.task(body, name=f"compat.{body.__name__}", bind=True)
    app.task(
        auto,
        name="compat.auto",
        bind=True,
        autoretry_for=(ConnectionError,),
        max_retries=5,
        default_retry_delay=SOON,
    )
    app.task(gated, name="compat.tracked", bind=True, track_started=True)
    app.task(soft, name="compat.soft", soft_time_limit=0.3)
    app.task(hard, name="compat.hard", time_limit=0.6)
    app.task(ignored, name="compat.ignored", ignore_result=True)
    app.task(gated, name="compat.late", bind=True, acks_late=True)
    app.task(work, name="compat.late_work", bind=True, acks_late=True, reject_on_worker_lost=True)
    return app


if SETTINGS in os.environ:
    app = make_app(**json.loads(os.environ[SETTINGS]))
