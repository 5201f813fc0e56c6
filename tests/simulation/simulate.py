"""One seed: random work under random faults, then peace, then the look at what is left. `run(seed)` returns what is
wrong, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from msgspec import Struct

from celeriac.ports import CHORD_DONE
from celeriac.testing.simulation.process import ProcessClock, spawn
from celeriac.testing.simulation.timeline import Stuck
from celeriac.testing.simulation.world import World
from tests.simulation.beside import BesideWorld
from tests.simulation.faults import KINDS, Faults
from tests.simulation.journal import Journal
from tests.simulation.tasks import LEASE, make_app
from tests.simulation.themes import THEMES
from tests.simulation.workload import Workload

__all__ = ["Report", "run", "smallest"]

#: Seconds after the last fault (and the last due time) within which all must be over.
BOUND = 90.0
#: Times that it is waited for what is due next: more, and something is put off for ever.
ROUNDS = 1000
#: Faults that repeat what is written step by step, where messages and results are on two servers.
_REPEATING = frozenset(KINDS) - {"latency", "skew", "deploys", "duplicates"}
#: Faults that end leases of which their holders think that they last.
_TAKING = frozenset({"late requests", "skew", "early restores"})


class Report(Struct):
    """What one seed brought."""

    seed: int
    problems: list[str]
    kinds: frozenset[str]
    themes: frozenset[str]
    steps: int
    seconds: float
    tasks: int
    trace: str
    tail: str
    #: The ledger was on a server of its own.
    beside: bool = False

    def __str__(self) -> str:
        faults = ",".join(sorted(self.kinds)) or "none"
        themes = ",".join(sorted(self.themes)) or "none"
        problems = "\n".join(f"  {problem}" for problem in self.problems[:10])
        return (
            f"seed {self.seed} (faults: {faults}; themes: {themes}):\n{problems}\n{self.tail}\n"
            f"again: ./dev simulate --first {self.seed} --seeds 1 --faults '{faults}' --themes '{themes}'"
            f"{' --beside' if self.beside else ''}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run(
    seed: int, kinds: frozenset[str] | None = None, themes: frozenset[str] | None = None, *, beside: bool = False
) -> Report:
    """Simulate; `kinds` replaces the faults that the seed would choose, `themes` the features beside plain work;
    `beside`: the ledger is on a server of its own."""
    random = Random(seed)
    count = random.choice((0, 1, 1, 2, 3, 4, len(KINDS)))
    chosen = frozenset(random.sample(KINDS, count))
    poison, apart = random.random() < 0.15, random.random() < 0.25
    pool = random.choice(("prefork", "prefork", "threads"))
    features = frozenset(random.sample(sorted(THEMES), random.choice((0, 0, 1, 1, 2, len(THEMES)))))
    kinds, themes = chosen if kinds is None else kinds, features if themes is None else themes
    # An app of its own: whatever the seed before has made it remember would change this one's course.
    app = make_app(max_crashes=3 if poison else 1_000_000)
    for name in sorted(themes):
        THEMES[name].prepare(app)
    with _quiet(), app, BesideWorld(app, seed) if beside else World(app, seed, apart=apart) as world:
        return _Run(world, seed, random, kinds, themes, poison=poison, pool=pool).report()


def smallest(report: Report) -> Report:
    """A report of the same seed that has problems with as few kinds of faults, and themes, as can be."""
    for kind in sorted(report.kinds):
        fewer = run(report.seed, report.kinds - {kind}, report.themes, beside=report.beside)
        if fewer.problems:
            report = fewer
    for theme in sorted(report.themes):
        fewer = run(report.seed, report.kinds, report.themes - {theme}, beside=report.beside)
        if fewer.problems:
            report = fewer
    return report


class _Run:
    def __init__(
        self,
        world: World,
        seed: int,
        random: Random,
        kinds: frozenset[str],
        themes: frozenset[str],
        *,
        poison: bool,
        pool: str,
    ) -> None:
        self.world = world
        self.seed = seed
        self.random = random
        self.journal = Journal(world)
        self.faults = Faults(world, self.journal, random, kinds, pool)
        skew = random.choice((0.0, 1.0, -1.0)) if "skew" in kinds else 0.0
        self.producer = spawn(world.timeline, "producer", ProcessClock(world.timeline, wall=skew))
        self.work = Workload(
            world.app,
            random,
            self.producer,
            poison=poison,
            capped="dead letters" in themes and bool(kinds),
            kinds=kinds,
            deaths=lambda: world.deaths,
        )
        self.themes = [THEMES[name](world, self.work, self.journal) for name in sorted(themes)]
        self.journal.themes = self.themes
        for theme in self.themes:
            self.work.add(theme.kinds())
        self.chosen = themes
        self._watch_restores()

    def _watch_restores(self) -> None:
        """Tell the journal of leases that run out."""
        queues, journal = self.world.server.queues, self.journal
        real = type(queues).restore

        class Watched(type(queues)):  # type: ignore[misc]
            __slots__ = ()

            def restore(self, *, now: float, tick: float) -> None:
                over = [token for token, lease in self.leases.items() if lease.until <= tick]
                real(self, now=now, tick=tick)
                if over:
                    journal.restored(over)

        queues.__class__ = Watched

    def report(self) -> Report:
        problems: list[str]
        try:
            problems = self._simulate()
        except Stuck as error:
            problems = [str(error)]
        except Exception as error:  # noqa: BLE001 - an error of the worker's is what we look for
            import traceback

            problems = [f"{type(error).__name__}: {error}", *traceback.format_exception(error)[-3:]]
        tail = self.journal.tail(count=60) if problems else ""
        timeline = self.world.timeline
        return Report(
            self.seed,
            problems,
            self.faults.kinds,
            self.chosen,
            timeline.steps,
            timeline.time,
            len(self.work.sent),
            self.journal.hash(),
            tail,
            self.world.ledger_server is not self.world.server,
        )

    def _simulate(self) -> list[str]:
        timeline, random = self.world.timeline, self.random
        self.faults.begin()
        moment = 0.0
        for _ in range(random.choice((3, 6, 10, 20))):
            moment += random.choice((0.0, 0.0, 0.001, 0.2, 2.0)) * random.random()
            self.producer.call_later(moment, self._send)
        if random.random() < 0.2:
            self.producer.call_later(moment, self._send_rubbish)
        timeline.run(moment + random.choice((1.0, 8.0, 20.0)))
        self.faults.heal()
        for theme in self.themes:
            theme.heal()
        deadline = max(timeline.time, self._last_due()) + BOUND
        latest = deadline + 3 * BOUND
        for _ in range(ROUNDS):
            if timeline.time >= deadline or self._is_over():
                break
            following = self.world.next_moment() if self.world.is_idle() else None
            self.world.pass_time(max(1.0, 0.0 if following is None else following - timeline.time))
            # As long as tasks end one after the other, there was just much to do; but not for ever.
            still = min(self.journal.last_end + BOUND / 3, latest)
            deadline = max(deadline, self._last_due() + BOUND, still)
        more = [problem for theme in self.themes for problem in theme.problems()] if self._is_over() else []
        return [*self._lost(), *self._counts(), *self._left_behind(), *self.journal.wrong, *self.journal.early, *more]

    def _send(self) -> None:
        self.work.send()

    def _send_rubbish(self) -> None:
        queues = self.world.server.queues
        raw = self.random.choice((b"\xff\x00", b"{}", b'{"body": 1', b"[" * 5000))
        queues.add("celery", raw, step=0, due=None, now=self.world.now())
        self.journal.published[(f"malformed {raw[:24]!r}", 0, 0)] += 1

    # -- is it over --------------------------------------------------------------------------------------------

    def _last_due(self) -> float:
        schedule = [entry for queue in self.world.server.queues._queues.values() for entry in queue.schedule]
        return max((due - self.world.timeline.epoch for due, _, _ in schedule), default=0.0)

    def _is_over(self) -> bool:
        world = self.world
        depth = world.server.queues.depth("celery", 0.0)
        if depth.ready or depth.scheduled or depth.leased or world.store_server.chords.pending():
            return False
        return not any(child.fetcher.held for node in world.nodes for child in node.children)

    # -- what must hold ----------------------------------------------------------------------------------------

    def _lost(self) -> list[str]:
        """Everything accepted has come to its end."""
        if not self._is_over():
            depth = self.world.server.queues.depth("celery", self.world.now())
            held = {c.process.name: list(c.fetcher.held) for n in self.world.nodes for c in n.children}
            return [f"not over {BOUND:g} s after the last fault: {depth}, held {held}"]
        work, root = self.work, self.journal.root
        found = [(sent, problem) for sent in work.sent if (problem := sent.problem())]
        return [problem for sent, problem in found if not work.half_open or root(sent.first) not in work.half_open]

    def _counts(self) -> list[str]:
        """Each message ended as often as it was sent; follow-ups were sent once; at most once means that."""
        journal, world = self.journal, self.world
        problems = []
        once = journal.once
        for key in journal.published.keys() | journal.ended.keys():
            sent, ended = journal.published[key], journal.ended[key]
            if sent != ended and self._is_over():
                problems.append(f"{key} was sent {sent} times and ended {ended} times")
        kinds = self.faults.kinds
        if "duplicates" not in kinds and (world.store_name == "broker" or not kinds & _REPEATING):
            for key, count in journal.followed.items():
                # What was acknowledged early is given back by publishing it.
                if count > journal.times(key) and key[0] not in once:
                    problems.append(f"the follow-up {key} was sent {count} times")
        if not kinds & _TAKING:
            problems += journal.unleased
        for key, count in journal.begun.items():
            if key[0] in once and count > journal.published[key]:
                problems.append(f"{key} is to run at most once and ran {count} times")
            elif self.faults.is_calm and not world.deaths and count > journal.times(key):
                problems.append(f"{key} ran {count} times though nothing happened")
        return problems

    def _left_behind(self) -> list[str]:
        """No lease and no chord is left."""
        world = self.world
        if not self._is_over():
            return []
        problems = [f"a lease is left: {lease}" for lease in world.server.queues.leases.values()]
        if world.store_name == "broker":
            chords: dict[str, Any] = world.store_server.chords._chords
            # A member that tells its end once more, long after its chord was forgotten, leaves one that nobody opened.
            forgotten = world.timeline.time > CHORD_DONE
            left = {n: c for n, c in chords.items() if not (c.is_done or (forgotten and c.size is None))}
            if self.work.uncertain or self.work.refused:
                # A chord is opened before its members are sent: that of a send that was refused stays, for a while.
                left = {name: chord for name, chord in left.items() if name in self.journal.groups}
            problems += [f"the chord {name} is left: {chord}" for name, chord in left.items()]
        return problems


assert LEASE < BOUND
