"""Processes for the tests of SQLite: forked workers and producers that tell what they did through a pipe."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celeriac.brokers import sqlite
from celeriac.model.message import Message
from celeriac.model.settle import Accept, Completion, StoredResult
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message

__all__ = ["SUCCESS", "Child", "children", "options", "produce", "work"]

SUCCESS = b'{"status": "SUCCESS", "result": null}'


class Child:
    """A forked process that writes lines; ends by itself, or by ``kill``."""

    def __init__(self, act: Callable[[Callable[[str], None]], object]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(reading)
                act(lambda line: void(os.write(writing, f"{line}\n".encode())))
                code = 0
            except BaseException:  # noqa: BLE001 - the exit code tells
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        self._lines = os.fdopen(reading)
        self._ended = False

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)

    def begun(self, timeout: float = 20.0) -> bool:
        """Wait until it wrote something."""
        poll = select.poll()
        poll.register(self._lines.fileno(), select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def join(self) -> tuple[int, list[str]]:
        """Exit code, and the lines it wrote; a line cut off by its death is left out."""
        text = self._lines.read()
        self._lines.close()
        self._ended = True
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, text.split("\n")[:-1]

    @property
    def ended(self) -> bool:
        """It was joined."""
        return self._ended


def void(_: object) -> None:
    """Nothing, for lambdas that must return nothing."""


@contextmanager
def children() -> Iterator[Callable[[Callable[[Callable[[str], None]], object]], Child]]:
    """Start children; whoever still runs at the end is killed."""
    started: list[Child] = []

    def start(act: Callable[[Callable[[str], None]], object]) -> Child:
        started.append(Child(act))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            if not child.ended:
                child.kill()
                child.join()


def options(**fields: object) -> AdapterOptions:
    """Options of an adapter with an owner of its own."""
    return AdapterOptions(**{"owner": f"owner-{os.getpid()}-{time.monotonic_ns()}", **fields})  # type: ignore[arg-type]


def produce(url: str, count: int, tell: Callable[[str], None], *, at_once: int = 1) -> None:
    """Publish ``count`` times, telling the ids of each publish that returned."""
    publisher = sqlite.publisher(url, options())
    for number in range(count):
        batch: list[Message] = [message(f"{os.getpid()}-{number}-{part}") for part in range(at_once)]
        publisher.publish(batch, timeout=60)
        tell(" ".join(each.id for each in batch))


def work(
    url: str,
    tell: Callable[[str], None],
    *,
    idle: float,
    limit: int = 32,
    lease: float = 30.0,
    over: Callable[[], bool] = lambda: True,
) -> None:
    """Claim and finish until it is ``over`` and nothing came for ``idle`` seconds, telling the ids of what was
    finished."""

    async def run() -> None:
        broker = sqlite.broker(url, options(lease=lease))
        await broker.open()
        while True:
            last = over()
            deliveries = await broker.claim(["q"], limit=limit, wait=idle)
            if not deliveries:
                if last:
                    break
                continue
            completions = [
                Completion(settlement=Accept(each), result=StoredResult(each.message.id, SUCCESS, True, 600.0))
                for each in deliveries
            ]
            verdicts = await broker.finish(completions)
            tell(" ".join(d.message.id for d, v in zip(deliveries, verdicts, strict=True) if v == "done"))
        await broker.close()

    asyncio.run(run())
