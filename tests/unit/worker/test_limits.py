"""What is asked for a limited delivery, and what becomes of it by the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.codec.reference import CONTENT_TYPE
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.limits import GO, LOST, PARKED, SEAT, Ask, Permission, Permit, Rate, Seats
from celeriac.model.message import Delivery, Marks
from celeriac.model.rules import Rule, RulesRead
from celeriac.model.settle import DeadLetter, Release
from celeriac.worker import adapters, inside
from celeriac.worker.limits import Limits
from celeriac.worker.options import NodeOptions
from celeriac.worker.report import Report
from celeriac.worker.runner import Runner
from tests.unit.worker.bench import KNOWN, FakeRunner, FetcherBench
from tests.unit.worker.fakes import FakeBroker, delivery, malformed, tokens, until


class FakeLimiter(FakeBroker):
    """Answers by ``answers``, GO when there are no more."""

    def __init__(self, *answers: Permit) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[Ask] = []
        self.freed_seats: list[set[Seats]] = []
        self.forgone: list[Delivery] = []

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        self.faults.meet("permit")
        self.asked += asks
        return [self.answers.pop(0) if self.answers else GO for _ in asks]

    async def freed(self, seats: Sequence[Seats], forgone: Sequence[Ask] = ()) -> None:
        await asyncio.sleep(0)
        self.freed_seats.append({*seats, *(ask.seats for ask in forgone if ask.seats is not None)})
        self.forgone += [ask.delivery for ask in forgone]
        self.faults.meet("freed")


def runner_of(**options: Any) -> Runner:
    app = Celery(set_as_current=False, broker="memory://")
    app.task(name="t", shared=False, **options)(lambda *args: None)
    report = Report(log_arguments=False, log_results=False)
    return Runner(app, NodeOptions(hostname="w@h", queues=("celery",)), slot=None, report=report, results=False)


def limits_of(*answers: Permit, **options: Any) -> tuple[FakeLimiter, Limits]:
    limiter = FakeLimiter(*answers)
    return limiter, Limits(limiter, runner_of(**options))  # type: ignore[arg-type]


def test_rate_and_seats_of_a_task() -> None:
    limiter, limits = limits_of(rate_limit="120/m", max_concurrency=3)
    one = delivery("t")
    permitted = asyncio.run(limits.permit([one]))
    assert limiter.asked == [Ask(one, Rate("t", 0.5), Seats("t", 3))]
    assert permitted.go == [one]


def test_keys_split_them() -> None:
    options = {"rate_limit_key": lambda tenant, n: tenant, "max_concurrency_key": lambda tenant, n: n}
    limiter, limits = limits_of(rate_limit=1, max_concurrency=1, **options)
    asyncio.run(limits.permit([delivery("t", "acme", 7)]))
    assert (limiter.asked[0].rate, limiter.asked[0].seats) == (Rate("t[acme]", 1.0), Seats("t[7]", 1))


def test_a_message_may_ask_for_a_seat_of_its_own() -> None:
    limiter, limits = limits_of()
    one, none = delivery("t", headers={SEAT: "beat:x"}), delivery("t", headers={SEAT: ["beat"]})
    asyncio.run(limits.permit([one, none]))
    assert [ask.seats for ask in limiter.asked] == [Seats("beat:x", 1), None]
    assert limits.seated


def test_the_limit_of_a_task_comes_before_its_messages() -> None:
    limiter, limits = limits_of(max_concurrency=3)
    asyncio.run(limits.permit([delivery("t", headers={SEAT: "beat:x"})]))
    assert [ask.seats for ask in limiter.asked] == [Seats("t", 3)]


def test_keys_of_any_kind() -> None:
    limiter, limits = limits_of(rate_limit=1, rate_limit_key=lambda key: key)
    keys = ["\udcff", "x" * 300, None, 5, ["a"]]
    asyncio.run(limits.permit([delivery("t", key) for key in keys]))
    buckets = [ask.rate.bucket for ask in limiter.asked if ask.rate is not None]
    assert buckets[0] == "t[\\udcff]"
    assert len(buckets[1]) == len("t[]") + 64
    assert buckets[2:] == ["t[None]", "t[5]", "t[['a']]"]


def test_a_broker_that_cannot_limit_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "broker_of", lambda app, owner: FakeBroker())
    adapters.check_needs(runner_of().app)
    with pytest.raises(ImproperlyConfigured, match="memory:// cannot limit tasks across workers"):
        adapters.check_needs(runner_of(rate_limit=1).app)


def test_what_needs_a_ledger_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FakeBroker()
    monkeypatch.setattr(adapters, "broker_of", lambda app, owner: broker)
    with pytest.raises(ImproperlyConfigured, match=r"task t is unique, which needs a ledger, .* set ledger_url"):
        adapters.check_needs(runner_of(unique="args").app)
    adapters.check_needs(runner_of().app)
    assert not caplog.records
    broker.traits = replace(broker.traits, requeues=True)
    adapters.check_needs(runner_of().app)
    (record,) = caplog.records
    assert "a task that kills its process is not counted" in record.getMessage()


def test_a_key_that_raises_fails_the_task() -> None:
    limiter, limits = limits_of(rate_limit=1, rate_limit_key=lambda: None)
    permitted = asyncio.run(limits.permit([delivery("t", "one too many")]))
    (completion,) = permitted.concluded
    assert isinstance(completion.settlement, DeadLetter)
    assert "TypeError" in completion.settlement.exception
    assert limiter.asked == []


def test_what_cannot_be_decoded_is_the_runners() -> None:
    limiter, limits = limits_of(rate_limit=1, rate_limit_key=lambda: None)
    bad = delivery("t", body=b"no JSON")
    assert asyncio.run(limits.permit([bad])).go == [bad]
    assert limiter.asked == []


def test_later_is_put_aside_and_marked_once() -> None:
    later = Permit(Permission.LATER, 5_000.0)
    _, limits = limits_of(later, later, rate_limit=1)
    new, again = delivery("t", marks=Marks(crashes=1)), delivery("t", marks=Marks(reserved=True))
    permitted = asyncio.run(limits.permit([new, again]))
    assert [each.settlement for each in permitted.concluded] == [
        Release(new, due=5_000.0, marks=Marks(crashes=1, reserved=True)),
        Release(again, due=5_000.0),
    ]


def test_parked_and_lost_ones_are_gone() -> None:
    _, limits = limits_of(PARKED, LOST, max_concurrency=1)
    batch = [delivery("t"), delivery("t")]
    assert asyncio.run(limits.permit(batch)).gone == batch


def test_seats_are_freed_together_while_the_server_answers() -> None:
    async def main() -> None:
        limiter, limits = limits_of(max_concurrency=1, max_concurrency_key=lambda n: n)
        batch = [delivery("t", n) for n in range(4)]
        await limits.permit(batch)
        limits.ended([delivery("t", 9)])
        assert limiter.freed_seats == []
        limits.ended(batch[:1])
        await until(lambda: limits._waking is not None)
        await asyncio.sleep(0)
        limits.ended(batch[1:3])
        limits.ended(batch[2:])
        await until(lambda: len(limiter.freed_seats) == 2)
        await until(lambda: limits._waking is None)
        assert limiter.freed_seats == [{Seats("t[0]", 1)}, {Seats(f"t[{n}]", 1) for n in (1, 2, 3)}]

    asyncio.run(main())


def test_a_server_that_is_away_costs_nothing() -> None:
    async def main() -> None:
        limiter, limits = limits_of(max_concurrency=1)
        limiter.faults.away("freed")
        for _ in range(2):
            one = delivery("t")
            await limits.permit([one])
            limits.ended([one])
            await until(lambda: limits._waking is None)
        assert len(limiter.freed_seats) == 2

    asyncio.run(main())


def test_the_agent_frees_what_a_dead_child_held() -> None:
    async def main() -> None:
        limiter, limits = limits_of(max_concurrency=2)
        limits.buried([delivery("t"), delivery("unknown")])
        await until(lambda: limiter.freed_seats)
        assert limiter.freed_seats == [{Seats("t", 2)}]

    asyncio.run(main())


def test_those_that_will_not_ask_forgo_what_is_kept_for_them() -> None:
    async def main() -> None:
        limiter, limits = limits_of(max_concurrency=1, max_concurrency_key=lambda n: n)
        held, silent = delivery("t", 1), delivery("t", 2)
        await limits.permit([held])
        limits.forgo([held, silent, delivery("unknown"), malformed()])
        await until(lambda: bool(limiter.freed_seats))
        assert (limiter.freed_seats, limiter.forgone) == ([{Seats("t[2]", 1)}], [silent])

    asyncio.run(main())


def test_nobody_looks_into_what_is_not_signed() -> None:
    async def main() -> None:
        keys: list[int] = []
        limiter, limits = limits_of(max_concurrency=1, max_concurrency_key=lambda n: keys.append(n))
        limits._runner.signer = SimpleNamespace(refusal=lambda message: "signature missing")  # type: ignore[assignment]
        limits.buried([delivery("t", 1)])
        await until(lambda: limits._waking is None)
        assert (keys, limiter.freed_seats) == ([], [])

    asyncio.run(main())


@pytest.mark.parametrize("keyed", [True, False])
def test_a_payload_store_is_read_beside_the_loop(keyed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        runner, limiter, aside = runner_of(max_concurrency=1, **keys), FakeLimiter(), list[Delivery]()
        runner.payloads = object()  # type: ignore[assignment]
        monkeypatch.setattr(runner, "decoded", lambda message: ([message.id], {}, None))

        async def run(look: Any, delivery: Delivery) -> Any:
            aside.append(delivery)
            return look(delivery)

        limits = Limits(limiter, runner, run)  # type: ignore[arg-type]
        far, near = delivery("t", id="far", content_type=CONTENT_TYPE), delivery("t", id="near")
        permitted = await limits.permit([far, near])
        assert permitted.go == [far, near]
        assert [ask.seats.key for ask in limiter.asked if ask.seats] == (["t[far]", "t[near]"] if keyed else ["t", "t"])
        limits.buried([far])
        await until(lambda: bool(limiter.freed_seats))
        assert aside == ([far, far] if keyed else [])

    keys = {"max_concurrency_key": lambda task_id: task_id} if keyed else {}
    asyncio.run(main())


def test_a_rate_set_by_remote_control() -> None:
    runner = runner_of()
    limiter = FakeLimiter()
    limits = Limits(limiter, runner)  # type: ignore[arg-type]
    child: Any = SimpleNamespace(runner=runner)
    assert runner.entry("t").options.limited is False  # type: ignore[union-attr]
    inside.answer(child, "rate_limit", {"rates": {"t": 4.0}})
    assert runner.entry("t").options.limited is True  # type: ignore[union-attr]
    asyncio.run(limits.permit([delivery("t")]))
    assert limiter.asked[0].rate == Rate("t", 0.25)
    inside.answer(child, "rate_limit", {"rates": {"t": 0.0}})
    assert runner.entry("t").options.limited is False  # type: ignore[union-attr]


# -- in the fetcher


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> FetcherBench:
    """A fetcher whose task ``l`` and coroutine ``lco`` are limited."""
    monkeypatch.setitem(KNOWN, "l", (False, True))
    monkeypatch.setitem(KNOWN, "lco", (True, True))
    real = FakeRunner.entry

    def entry(self: FakeRunner, name: str) -> Any:
        found = real(self, name)
        if found is not None and name.startswith("l"):
            found.options = type(found.options)(name=name, limited=True, max_concurrency=1)
        return found

    monkeypatch.setattr(FakeRunner, "entry", entry)
    bench = FetcherBench()
    bench.limiter = FakeLimiter()  # type: ignore[attr-defined]
    bench.limits._limiter = bench.limiter  # type: ignore[attr-defined]
    return bench


def test_the_others_do_not_wait_and_each_goes_to_its_executor(bench: FetcherBench) -> None:
    bench.limiter.answers = [GO, PARKED, GO, Permit(Permission.LATER, 9e9)]  # type: ignore[attr-defined]
    batch = [delivery(name) for name in ("l", "t", "l", "lco", "l")]
    asyncio.run(bench.fetcher.admit(batch))
    assert bench.sync.inbox == [batch[1], batch[0]]
    assert bench.coroutines.inbox == [batch[3]]
    assert list(bench.fetcher.held) == tokens([batch[0], batch[1], batch[3], batch[4]]), "what is parked is not held"
    assert [each.ending.delivery for each in bench.concluded] == [batch[4]]


def test_ordinary_tasks_are_not_asked_for(bench: FetcherBench) -> None:
    asyncio.run(bench.fetcher.admit([delivery("t"), delivery("co")]))
    assert bench.limiter.asked == []  # type: ignore[attr-defined]


def test_what_ends_without_asking_gives_up_its_seat(bench: FetcherBench) -> None:
    async def main() -> None:
        bench.limits.seated = True
        monkey = delivery("l", id="revoked")
        bench.rules.learn(RulesRead(1, [Rule("revoke:revoked", b"{}", None, 1)]), 0.0)
        bench.rules.learn(RulesRead(2, [Rule("pause:later", b"{}", None, 2)]), 0.0)
        paused = replace(delivery("l"), queue="later")
        await bench.fetcher.admit([monkey, paused, delivery("t")])
        await until(lambda: len(bench.limiter.forgone) == 2)  # type: ignore[attr-defined]
        assert tokens(bench.limiter.forgone) == tokens([paused, monkey])  # type: ignore[attr-defined]

    asyncio.run(main())


def test_it_asks_again_while_the_broker_is_away(bench: FetcherBench) -> None:
    bench.limiter.faults.plan("permit", OperationalError("away"), OperationalError("away"))  # type: ignore[attr-defined]
    one = delivery("l")
    asyncio.run(bench.fetcher.admit([one]))
    assert bench.sync.inbox == [one]


def test_a_child_that_stops_meanwhile_gives_back(bench: FetcherBench) -> None:
    async def main() -> None:
        bench.limiter.faults.away("permit", 3)  # type: ignore[attr-defined]
        one = delivery("l")
        admitting = asyncio.create_task(bench.fetcher.admit([one]))
        await asyncio.sleep(0)
        bench.fetcher.stop()
        await admitting
        assert [each.settlement for each in bench.concluded] == [Release(one)]

    asyncio.run(main())


def test_while_nothing_may_run_claims_grow(bench: FetcherBench) -> None:
    fetcher, limiter = bench.fetcher, bench.limiter  # type: ignore[attr-defined]
    rooms = []
    for _ in range(8):
        rooms.append(fetcher.appetite.room())
        limiter.answers = [PARKED] * rooms[-1]
        asyncio.run(fetcher.admit([delivery("l") for _ in range(rooms[-1])]))
    assert rooms == [1, 2, 4, 8, 16, 32, 64, 64]
    one = delivery("t")
    asyncio.run(fetcher.admit([one]))
    bench.settled([one])
    assert fetcher.appetite.room() == 1


def test_nobody_takes_seats_ahead(bench: FetcherBench) -> None:
    bench.runner.runtimes = {"t": 0.001, "l": 0.001}
    for name, least, most in (("t", 10, 100), ("l", 1, 1)):
        for _ in range(8):
            one = delivery(name)
            asyncio.run(bench.fetcher.admit([one]))
            bench.settled([one])
        assert least <= bench.fetcher.appetite.room() <= most


def test_nothing_is_remembered_of_a_delivery_that_ended() -> None:
    async def main() -> None:
        limiter, limits = limits_of(max_concurrency=1)
        batch: list[Delivery] = [delivery("t") for _ in range(3)]
        await limits.permit(batch)
        limits.ended(batch)
        await until(lambda: limiter.freed_seats)
        assert limits._seats == {}

    asyncio.run(main())
