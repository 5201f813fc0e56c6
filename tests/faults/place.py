"""A broker with its results, as seen from outside: where tests send, look, and put bytes that no producer would.

The same for Redis, SQLite, PostgreSQL and RabbitMQ (with results in Redis), so that each fault is tried on all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from celeriac import Celery
from celeriac.client import resolver
from celeriac.exceptions import OperationalError
from celeriac.ports import Broker, DeadRecord, Depth
from tests.faults.fleet import Fleet
from tests.faults.journal import report
from tests.faults.project import make_app
from tests.servers import PostgresServer, RabbitServer, RedisServer, wait_until

__all__ = ["QUEUE", "Place", "RabbitPlace"]

QUEUE = "celery"
#: Short, so that what a dead node held comes back soon.
LEASE = 2.0
#: Of those who take over: a moment in which their machine stands still must not cost them what they have.
HEIRS_LEASE = 6.0

T = TypeVar("T")
_PAGE = 500


class Place:
    """One broker URL; ``conf`` are the settings of the app and of every worker."""

    def __init__(
        self,
        url: str,
        folder: Path,
        server: RedisServer | None = None,
        database: PostgresServer | None = None,
        **conf: Any,
    ) -> None:
        self.url = url
        self.folder = folder
        #: The Redis, or the PostgreSQL, where it is one.
        self.server = server
        self.database = database
        self.conf: dict[str, Any] = {
            "broker_url": url,
            "result_backend": url,
            "worker_lease": LEASE,
            "worker_unknown_task_park": 1.0,
            **conf,
        }
        self.app: Celery = make_app(self.conf)

    @property
    def kind(self) -> str:
        return self.url.partition(":")[0]

    @property
    def withdraws(self) -> bool:
        """The server looks into its queues for revoked tasks."""
        return not self.url.startswith(("queues+", "amqp"))

    def through(self, **conf: Any) -> Place:
        """The same place by other settings, for instance through a proxy."""
        return Place(conf.pop("url", self.url), self.folder, self.server, self.database, **{**self._extra(), **conf})

    def _extra(self) -> dict[str, Any]:
        return {name: value for name, value in self.conf.items() if name not in {"broker_url", "result_backend"}}

    def fleet(self, **conf: Any) -> Fleet:
        """A fleet whose workers have these settings and ``conf``."""
        return Fleet(self.folder, {**self.conf, **conf})

    # -- sending and reading

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """``apply_async``; returns the id."""
        result: Any = self.app.tasks[f"faults.{name}"].apply_async(args, **options)
        return str(result.id)

    def send_many(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[str]:
        """All in one round trip; returns the ids."""
        task = self.app.tasks[f"faults.{name}"]
        return [str(result.id) for result in self.app.send_many(task.s(*args) for args in arguments)]

    def fill(self, numbers: dict[str, int], ballast: int, milliseconds: float = 0) -> OperationalError:
        """Send tasks that carry so many bytes until the server has no room; every other one ignores its result."""
        task: Any = self.app.tasks["faults.work"]
        for number in range(100_000):
            try:
                result = task.apply_async(
                    (number, milliseconds), headers={"ballast": "x" * ballast}, ignore_result=number % 2 == 0
                )
            except OperationalError as error:
                return error
            numbers[str(result.id)] = number
        raise AssertionError("it never got full")

    def records(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """The result records as they are stored."""
        reader = resolver.reader(self.app.backend_url or "", resolver.store_options(self.app.conf))
        try:
            found: list[bytes | None] = []
            for at in range(0, len(ids), _PAGE):
                found += reader.get(ids[at : at + _PAGE], timeout=10.0)
            return [json.loads(raw) if raw is not None else None for raw in found]
        finally:
            reader.close()

    def state(self, name: str) -> str:
        record = self.records([name])[0]
        return "PENDING" if record is None else str(record["status"])

    def wait_state(self, name: str, state: str, seconds: float = 15.0) -> dict[str, Any]:
        """Wait until the record says so; returns it."""
        wait_until(lambda: self.state(name) == state, seconds, lambda: f"{name} is {state}: {self.records([name])}")
        record = self.records([name])[0]
        assert record is not None
        return record

    # -- looking

    def ask(self, question: Callable[[Broker], Any]) -> Any:
        """One question to a broker adapter of its own."""

        async def main() -> Any:
            broker = resolver.broker(self.url, resolver.adapter_options(self.app.conf, owner="observer"))
            await broker.open()
            try:
                return await question(broker)
            finally:
                await broker.close()

        return asyncio.run(main())

    def depth(self, queue: str = QUEUE) -> Depth:
        found: Mapping[str, Depth] = self.ask(lambda broker: broker.depth([queue]))
        return found[queue]

    def dead(self, limit: int = 1000) -> list[DeadRecord]:
        return list(self.ask(lambda broker: broker.dead(limit=limit)))

    def empty(self) -> bool:
        depth = self.depth()
        return depth.ready == depth.scheduled == depth.leased == 0

    def wait_empty(self, seconds: float = 15.0) -> None:
        """Nothing waits, is scheduled or leased."""
        wait_until(self.empty, seconds, lambda: f"the queue is empty: {self.depth()}")

    # -- bytes that no producer writes

    def put_raw(self, data: bytes, queue: str = QUEUE) -> None:
        """One entry of a queue, as it is."""
        if self.server is not None:
            self.server.command("LPUSH", queue, data)
            return
        if self.database is not None:
            self.database.execute(self.adding, queue, data, queue)
            return
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as file, file:
            number = file.execute("SELECT coalesce(max(id), 0) + 1 FROM message").fetchone()[0]
            file.execute("INSERT INTO message VALUES (?, ?, 0, ?, ?)", (number, queue, time.time(), data))
            file.execute("INSERT INTO ready VALUES (?, 0, ?, ?, 0)", (queue, number, number))

    @property
    def adding(self) -> str:
        """What puts bytes into a queue of PostgreSQL; takes queue, bytes, queue."""
        one = "ARRAY[%s], ARRAY[0::smallint], ARRAY[NULL::float8], ARRAY[%s::bytea]"
        return f"SELECT {self.schema}.add({one}), {self.schema}.announce(ARRAY[%s])"

    @property
    def schema(self) -> str:
        """Where the tables are, in a PostgreSQL."""
        return self.url.partition("schema=")[2]

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.removeprefix("sqlite:///"))

    # -- judging

    def judge(self, fleet: Fleet, numbers: Mapping[str, int], *, allowed: int | None = None, **further: float) -> None:
        """Print the counts, and fail when a task was lost or a result cannot be read. ``numbers``: id → its result.

        ``allowed`` is the number of starts beyond the first that the fault accounts for: more are doubled, and fail.
        """
        ids = list(numbers)
        records = self.records(ids)
        dead = {letter.id for letter in self.dead(limit=5000)}
        open_ = [each for each in ids if not fleet.journal.read().ends[each] and each not in dead]
        stuck = 0
        if open_:
            depth = self.depth()
            stuck = min(len(open_), depth.ready + depth.scheduled + depth.leased)
        unreadable = [each for each, record in zip(ids, records, strict=True) if record is None]
        wrong = [
            (each, record)
            for each, record in zip(ids, records, strict=True)
            if record is not None and (record["status"], record["result"]) != ("SUCCESS", numbers[each])
        ]
        again = fleet.journal.again(ids)
        counts: dict[str, Any] = {"lost": len(open_) - stuck, "stuck": stuck, "again": again}
        if allowed is not None:
            counts["doubled"] = max(0, again - allowed)
        counts["dead"] = len(dead.intersection(ids))
        report(place=self.kind, sent=len(ids), **counts, unreadable=len(unreadable), wrong=len(wrong), **further)
        assert not open_, f"lost or stuck {open_[:5]}\n{fleet.logs()}"
        assert not unreadable, f"no result of {unreadable[:5]}\n{fleet.logs()}"
        assert not wrong, f"wrong results {wrong[:5]}\n{fleet.logs()}"
        assert not counts.get("doubled"), f"started again {again} times, {allowed} allowed\n{fleet.logs()}"

    def wait_all(self, fleet: Fleet, ids: Sequence[str], seconds: float) -> None:
        """Wait until all of these have ended at least once, and their results are stored."""
        wait_until(
            lambda: fleet.journal.ended(ids) == len(ids),
            seconds,
            lambda: f"all end: {fleet.journal.ended(ids)} of {len(ids)}, {self.depth()}\n{fleet.logs()}",
        )
        self.wait_empty()


class RabbitPlace(Place):
    """A virtual host of RabbitMQ, with results in Redis."""

    def __init__(self, node: RabbitServer, vhost: str, folder: Path, results: str, **conf: Any) -> None:
        self.node, self.vhost = node, vhost
        super().__init__(node.url(vhost), folder, **{"result_backend": results, **conf})

    def depth(self, queue: str = QUEUE) -> Depth:
        """As the node sees it: what is delayed and what is held too, which AMQP does not tell."""
        queues = self.node.queues(self.vhost)
        ready, held = queues.get(queue, (0, 0))
        kept = [count for name, counts in queues.items() if name.startswith("celeriac.held.") for count in counts]
        delayed = [count for name, counts in queues.items() if "celery_delayed_" in name for count in counts]
        return Depth(ready=ready, scheduled=sum(delayed), leased=held + sum(kept))

    def put_raw(self, data: bytes, queue: str = QUEUE) -> None:
        raise NotImplementedError("what a stranger puts into RabbitMQ is tested in tests/integration")


def in_steps(items: Sequence[T], count: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of about equal size."""
    size = -(-len(items) // count)
    for at in range(0, len(items), size):
        yield items[at : at + size]
