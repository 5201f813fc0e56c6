"""The tasks of the benchmark, the same for both peers: `BENCH_LIBRARY` names the package that offers `Celery`.

Imported by workers (`-A bench.app`) and by `bench.produce`, in either venv. A task that gets `mark` notes the time at
which it started in the file `BENCH_MARKS`: that is how progress is seen without asking the broker.
"""

# mypy: disable-error-code="untyped-decorator"

import importlib
import json
import os
import time
from typing import Any

from bench.spin import spin

library: Any = importlib.import_module(os.environ.get("BENCH_LIBRARY", "celeriac"))
app: Any = library.Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"])
app.conf.broker_connection_retry_on_startup = True
app.conf.update(json.loads(os.environ.get("BENCH_SETTINGS", "{}")))

marks_file: int | None = None


def note(mark: int) -> None:
    global marks_file
    now = time.time()
    if marks_file is None:
        marks_file = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(marks_file, b"%d %.6f\n" % (mark, now))


@app.task(name="bench.noop")
def noop(payload: str | None = None, mark: int | None = None) -> None:
    if mark is not None:
        note(mark)


@app.task(name="bench.noop_ignored", ignore_result=True)
def noop_ignored(payload: str | None = None, mark: int | None = None) -> None:
    if mark is not None:
        note(mark)


@app.task(name="bench.started")
def started() -> float:
    return time.time()


@app.task(name="bench.length")
def length(items: list[object]) -> int:
    return len(items)


@app.task(name="bench.wait")
def wait(payload: str | None = None, mark: int | None = None) -> None:
    if mark is not None:
        note(mark)
    time.sleep(0.01)


@app.task(name="bench.spin")
def spin_task(turns: int, mark: int | None = None) -> None:
    if mark is not None:
        note(mark)
    spin(turns)


if library.__name__ == "celeriac":  # Celery has no async tasks

    @app.task(name="bench.async_wait")
    async def async_wait(payload: str | None = None, mark: int | None = None) -> None:
        import asyncio

        if mark is not None:
            note(mark)
        await asyncio.sleep(0.01)
