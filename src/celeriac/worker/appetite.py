"""How much a child claims: what fits its free slots and a few milliseconds of work besides.

On the I/O loop, asked by the fetcher before each claim and told what each claim brought. Claims nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from celeriac.executors import Executor
from celeriac.model.message import Delivery
from celeriac.worker.options import NodeOptions
from celeriac.worker.runner import Runner

__all__ = ["CLAIM_LIMIT", "HELD_LIMIT", "Appetite"]

#: Most deliveries in one claim, and most held beyond the slots: while one batch runs, the next is under way and the one
#: before is being settled.
CLAIM_LIMIT = 256
HELD_LIMIT = 768


class Appetite:
    """Of one child. ``held`` is everything that was claimed and is not settled; ``finishing()`` says how many of it are
    run and being written."""

    def __init__(
        self,
        options: NodeOptions,
        runner: Runner,
        sync: Executor,
        held: Collection[str],
        finishing: Callable[[], int],
    ) -> None:
        self._options = options
        self._runner = runner
        self._sync = sync
        self._held = held
        self._finishing = finishing
        #: Where coroutines run, once there was one.
        self.coroutines: Executor | None = None
        #: A suspect is held: nothing else is, until it is over.
        self.alone = False
        #: Every synchronous slot is taken by a task that runs for long.
        self.stalled = False
        #: Nothing of the last claims might run: look at so many next time.
        self.sifting = 0
        #: Expected run time of what comes next, seconds, and the share of coroutines in it.
        self.average = 0.0
        self._async_share = 0.0

    def room(self) -> int:
        """How many deliveries to claim now: none while there is not room for half the target."""
        options = self._options
        held = len(self._held)
        if self.alone:
            return 0 if held else 1
        # A claim leaves together with the outcomes that make room for it, not a round trip later.
        held = max(0, held - self._finishing())
        limit = self._slots()
        if limit <= 0:
            return 0
        average = self.average
        fit = limit * options.claim_target
        # Compared before it is divided: by the average of tasks that took no time it would be infinite.
        ahead = 0 if average <= 0 else HELD_LIMIT if average * HELD_LIMIT < fit else int(fit / average)
        if options.prefetch_limit is not None:
            ahead = min(ahead, max(0, options.prefetch_limit - limit))
        room = min(limit + ahead - held, CLAIM_LIMIT)
        # Half of what is ahead at a time, but a free slot never waits.
        if held >= limit and room < min(ahead // 2, CLAIM_LIMIT):
            return 0
        if room > 0 and self.sifting > room and options.prefetch_limit is None:
            room = self.sifting
        most = options.max_tasks_per_child
        return room if most is None else min(room, most - self._runner.count - held)

    def _slots(self) -> int:
        """Tasks that can run at once, by the share of coroutines among what comes in."""
        coroutines = self.coroutines
        if coroutines is None:
            return 0 if self.stalled else self._sync.limit
        if self.stalled:
            # Only coroutines can start: synchronous tasks that come along go back at once.
            return len(self._held) + coroutines.limit - len(coroutines.active()) - coroutines.waiting()
        share = self._async_share
        return max(1, round(self._sync.limit * (1 - share) + coroutines.limit * share))

    def learn(self, deliveries: Sequence[Delivery], coroutines: int, seated: int) -> None:
        """Run time and kind of a claimed batch, as the next claim's guess; ``seated`` of it have a seat."""
        runtimes = self._runner.runtimes
        known = [runtimes[d.message.task] for d in deliveries if d.message.task in runtimes]
        if seated:
            # Claimed ahead they would keep seats from others for nothing.
            known += [2 * self._options.claim_target] * seated
        if known:
            average = sum(known) / len(known)
            self.average = average if not self.average else 0.5 * (self.average + average)
        self._async_share = 0.5 * (self._async_share + coroutines / len(deliveries))
