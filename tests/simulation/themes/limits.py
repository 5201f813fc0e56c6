"""Tasks that are limited across workers: at their pace, and so many at a time.

A body that holds its lease holds its seat; a zombie, whose lease is gone, does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.model.limits import SLACK, Permission
from celeriac.model.message import Delivery
from celeriac.testing.simulation.node import Child
from tests.simulation.tasks import duration_of, work
from tests.simulation.themes.theme import Theme, Work
from tests.simulation.workload import Sent

if TYPE_CHECKING:
    from tests.simulation.journal import Journal
    from tests.simulation.workload import Workload

__all__ = ["Limits"]

_NAMES = ("sim.paced", "sim.seated", "sim.seated_coroutine", "sim.both")
#: Numbers of bodies that take little time.
_NUMBERS = (0, 1, 3, 4, 5, 6)


class Limits(Theme):
    """See the module."""

    def __init__(self, world: Any, work: Workload, journal: Journal) -> None:
        super().__init__(world, work, journal)
        #: Token → what was asked for it, of those that may run.
        self._allowed: dict[str, Any] = {}
        #: Seats → tokens whose bodies have begun.
        self._running: dict[str, set[str]] = {}
        #: Bucket → interval, and the moments at which a start was allowed.
        self._starts: dict[str, tuple[float, list[float]]] = {}

    @staticmethod
    def prepare(app: Any) -> None:
        @app.task(name="sim.paced", rate_limit="4/s", shared=False)
        def paced(number: int) -> int:
            work(number)
            return number

        @app.task(name="sim.seated", max_concurrency=2, shared=False)
        def seated(number: int) -> int:
            work(number)
            return number

        @app.task(name="sim.seated_coroutine", max_concurrency=2, shared=False)
        async def seated_coroutine(number: int) -> int:
            import asyncio

            await asyncio.sleep(duration_of(number))
            return number

        @app.task(
            name="sim.both", rate_limit="5/s", max_concurrency=1, shared=False,
            rate_limit_key=_parity, max_concurrency_key=_parity, autoretry_for=(OSError,), bind=True,
            retry_backoff=False, default_retry_delay=0.2,
        )  # fmt: skip
        def both(self: Any, number: int) -> int:
            work(number)
            if number == 3 and self.request.retries == 0:
                raise OSError(number)
            return number

    def kinds(self) -> Sequence[tuple[int, Work]]:
        return ((10, self._burst),)

    def _burst(self) -> Sequence[Sent]:
        random = self.random
        name = random.choice(_NAMES)
        ahead = random.choice((None, None, None, 1.0))
        numbers = [random.choice(_NUMBERS) for _ in range(random.choice((1, 3, 6)))]
        return [self.work.call(name, number, {states.SUCCESS}, countdown=ahead) for number in numbers]

    # -- what must hold ----------------------------------------------------------------------------------------

    def tell(self, process: str, method: str, args: tuple[Any, ...], answer: Any) -> None:
        if method != "permit":
            return
        for ask, permit in zip(args[0], answer, strict=True):
            if permit.permission is Permission.GO:
                again = ask.seats is not None and ask.delivery.token in self._allowed  # it had its start
                self._allowed[ask.delivery.token] = ask
                # Where the ledger is apart it was allowed somewhat earlier, nobody knows when.
                if ask.rate is not None and not self.apart and not again:
                    self._start(ask.rate)

    def _start(self, rate: Any) -> None:
        interval, starts = self._starts.setdefault(rate.bucket, (rate.interval, []))
        now = self.now
        starts.append(now)
        for count, before in enumerate(reversed(starts), start=1):
            if count > (now - before + SLACK) / interval + 1 + 1e-6:
                self.wrong(f"{count} starts of {rate.bucket} within {now - before:.3f} s, not {interval} s apart")
                break

    def began(self, child: Child, delivery: Delivery) -> None:
        token, message = delivery.token, delivery.message
        if message.task not in _NAMES:
            return
        ask = self._allowed.get(token)
        if ask is None:
            self.wrong(f"{message.task}[{message.id}] runs, and nobody has allowed it")
            return
        leases = self._leases()
        if ask.seats is None or token not in leases or self.window:
            return
        running = {each for each in self._running.get(ask.seats.key, ()) if each in leases} | {token}
        self._running[ask.seats.key] = running
        if len(running) > ask.seats.most:
            self.wrong(f"{len(running)} of {ask.seats.key} run at a time: {sorted(running)}")

    def _leases(self) -> set[str]:
        """Tokens that are leased; where seats have leases of their own, only as long as these last."""
        server = self.world.server
        tick = server.clock.monotonic() if self.apart else -math.inf
        return {token for token, lease in server.queues.leases.items() if lease.until > tick}

    def problems(self) -> Sequence[str]:
        server = self.world.server
        server.limits.tend(server.clock.now() + 60.0, 0.0)
        left = [f"the seats of {key} are left: {row}" for key, row in server.limits._rows.items()]
        return [*left, *(f"the pace of {bucket} is left: {pace}" for bucket, pace in server.limits._paces.items())]


def _parity(number: int) -> str:
    return "odd" if number % 2 else "even"
