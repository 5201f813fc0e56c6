"""procrastinate, a peer on PostgreSQL, in the peers' venv: `python -m bench.peers_procrastinate MODE '{"count": 9}'`.

The same work as `bench.app` and `bench.produce`, as its documentation does it: a coroutine that does nothing, 20 at a
time in each of two processes (1, 5 or 60 made no difference). It keeps the state of a job, and no result.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

AT_ONCE = 20
BULK = 1_000

marks_file: int | None = None


def make_app(connector: Any) -> Any:
    app = App(connector=connector)

    async def noop(payload: str | None = None, mark: int | None = None) -> None:
        global marks_file
        if mark is None:
            return
        now = time.time()
        if marks_file is None:
            marks_file = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(marks_file, b"%d %.6f\n" % (mark, now))

    app.task(name="bench.noop")(noop)
    return app


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    if mode == "worker":
        worker(**options)
        return
    app = make_app(SyncPsycopgConnector(conninfo=os.environ["BENCH_BROKER"]))
    modes: dict[str, Callable[..., object]] = {"fill": fill, "delay": delay, "bulk": bulk}
    with app.open():
        if not app.connector.execute_query_one("SELECT to_regclass('procrastinate_jobs') IS NOT NULL AS there")[
            "there"
        ]:
            app.schema_manager.apply_schema()
        print(json.dumps(modes[mode](app.tasks["bench.noop"], **options)))


def worker(processes: int) -> None:
    """So many processes; they end with this one."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=work, daemon=True) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()


def work() -> None:
    import asyncio

    async def run() -> None:
        app = make_app(PsycopgConnector(conninfo=os.environ["BENCH_BROKER"]))
        async with app.open_async():
            await app.run_worker_async(concurrency=AT_ONCE, delete_jobs="never")

    asyncio.run(run())


def fill(noop: Any, *, task: str, count: int, mark_every: int, argument: object = None, **_due: object) -> int:
    """The calls that `bench.messages.Load` describes, in bulk."""
    constant = {} if argument is None else {"payload": argument}
    calls = [constant | ({"mark": i} if mark_every and i % mark_every == 0 else {}) for i in range(count)]
    for at in range(0, count, BULK):
        noop.batch_defer(*calls[at : at + BULK])
    return count


def delay(noop: Any, *, count: int, threads: int = 1) -> dict[str, float]:
    """Calls a second of single `defer()`, in all threads together."""

    def send(calls: int) -> None:
        for _ in range(calls):
            noop.defer()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, [50] * threads))
        started = time.perf_counter()
        list(pool.map(send, [count // threads] * threads))
        elapsed = time.perf_counter() - started
    return {"rate": count // threads * threads / elapsed}


def bulk(noop: Any, *, count: int) -> dict[str, float]:
    """Calls a second when sent by the thousand."""
    noop.batch_defer(*[{}] * BULK)
    started = time.perf_counter()
    for _ in range(0, count, BULK):
        noop.batch_defer(*[{}] * BULK)
    return {"rate": count / (time.perf_counter() - started)}


if __name__ == "__main__":
    main()
