"""What becomes of each claimed delivery: run, concluded, or given back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.codec.results import encode_result
from celeriac.codec.signing import Signer
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed, Marks
from celeriac.model.rules import Rule
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release
from celeriac.worker.fetcher import STALL
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import delivery, malformed, tokens


def admit(bench: FetcherBench, *batch: Delivery) -> None:
    asyncio.run(bench.fetcher.admit(batch))


def record(state: str, **extended: Any) -> bytes:
    return encode_result(task_id="x", state=state, result=None, extended=extended or None)


def test_ordinary_ones_are_handed_over_in_order() -> None:
    bench, batch = FetcherBench(), [delivery() for _ in range(5)]
    admit(bench, *batch)
    assert bench.sync.inbox == batch
    assert list(bench.fetcher.held) == tokens(batch)
    assert bench.concluded == []
    assert bench.broker.log == []
    assert bench.store is not None
    assert bench.store.log == []


def test_coroutines_go_to_their_own_executor() -> None:
    bench, sync, coroutine = FetcherBench(), delivery("t"), delivery("co")
    admit(bench, coroutine, sync)
    assert (bench.sync.inbox, bench.coroutines.inbox) == ([sync], [coroutine])


def test_a_malformed_one_goes_to_the_dead_letters_alone() -> None:
    bench, bad, good = FetcherBench(), malformed(), delivery()
    admit(bench, bad, good)
    outcome, settlement = bench.outcome(bad), bench.concluded[0].settlement
    assert isinstance(outcome, o.Discarded)
    assert outcome.reason == "not JSON"
    assert isinstance(settlement, DeadLetter)
    assert settlement.reason is DeadReason.MALFORMED
    assert bench.sync.inbox == [good]


def test_an_unknown_one_is_parked_then_given_up() -> None:
    bench, new = FetcherBench(), delivery("nobody.knows")
    admit(bench, new)
    settlement = bench.concluded[0].settlement
    assert isinstance(settlement, Release)
    assert settlement.due == 1_005.0
    assert settlement.marks is not None
    assert settlement.marks.parked_until == 1_060.0
    old = delivery("nobody.knows", marks=Marks(parked_until=999.0))
    admit(bench, old)
    given_up = bench.concluded[1].settlement
    assert isinstance(given_up, DeadLetter)
    assert given_up.reason is DeadReason.UNKNOWN_TASK


@pytest.mark.parametrize("marks", [Marks(crashes=3, suspect=True), Marks(expired_leases=10, suspect=True)])
def test_one_that_was_lost_too_often_does_not_run_again(marks: Marks) -> None:
    bench, lost = FetcherBench(), delivery(marks=marks)
    admit(bench, lost)
    assert bench.outcome(lost) == o.Lost()
    assert isinstance(bench.concluded[0].settlement, DeadLetter)
    assert bench.sync.inbox == []


def test_one_that_was_lost_before_runs() -> None:
    bench, lost = FetcherBench(), delivery(marks=Marks(crashes=2, expired_leases=9, suspect=True))
    admit(bench, lost)
    assert bench.sync.inbox == [lost]


def test_one_that_is_not_due_goes_to_the_schedule_untouched() -> None:
    bench, due = FetcherBench(), time.time() + 60
    early, now = delivery(due=due), delivery(due=time.time() - 1)
    admit(bench, early, now)
    assert bench.concluded[0].settlement == Release(early, due=due)
    assert bench.runner.outcomes == []
    assert bench.sync.inbox == [now]


def test_expired_and_revoked() -> None:
    bench = FetcherBench()
    expired, fresh = delivery(expires=time.time() - 1), delivery(expires=time.time() + 60)
    revoked = delivery(id="no")
    bench.rules.hear([Rule("revoke:no", b"{}")])
    admit(bench, expired, revoked, fresh)
    assert bench.outcome(expired) == o.Revoked("expired")
    assert bench.outcome(revoked) == o.Revoked("revoked")
    assert bench.sync.inbox == [fresh]
    assert [type(each.settlement) for each in bench.concluded] == [Accept, Accept]


@pytest.mark.parametrize("fields", [{"id": "no"}, {"expires": 1.0}], ids=["revoked", "expired"])
def test_what_has_ended_before_keeps_its_result(fields: dict[str, Any]) -> None:
    bench, again = FetcherBench(), delivery(redelivered=True, **fields)
    bench.rules.hear([Rule("revoke:no", b"{}")])
    assert bench.store is not None
    bench.store.records[again.message.id] = record("SUCCESS")
    admit(bench, again)
    assert isinstance(bench.outcome(again), o.Repeated)


def test_what_expired_before_it_was_due_waits_for_its_time() -> None:
    """As in Celery: an ETA comes first; the expiry is looked at when the task could start."""
    bench = FetcherBench()
    admit(bench, delivery(due=time.time() + 60, expires=time.time() - 1))
    assert isinstance(bench.concluded[0].settlement, Release)


# -- delivered again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "retries", "is_done"),
    [
        (record("SUCCESS"), 0, True),
        (record("FAILURE"), 0, True),
        (record("REVOKED"), 0, True),
        (record("RETRY", retries=2), 2, True),
        (record("RETRY", retries=3), 2, True),
        (record("RETRY", retries=1), 2, False),
        (record("RETRY"), 0, False),
        (record("STARTED"), 0, False),
        (record("PROGRESS"), 0, False),
        (b"\x80\x04rubbish", 0, False),
        (b'{"status": 5}', 0, False),
        (b'["SUCCESS"]', 0, False),
        (None, 0, False),
    ],
)
def test_a_redelivered_one_is_not_run_when_its_record_says_it_is_done(
    stored: bytes | None, retries: int, is_done: bool
) -> None:
    bench, again = FetcherBench(), delivery(redelivered=True, retries=retries)
    assert bench.store is not None
    if stored is not None:
        bench.store.records[again.message.id] = stored
    admit(bench, again)
    found = bench.outcome(again)
    assert isinstance(found, o.Repeated) if is_done else found is None
    assert bench.sync.inbox == ([] if is_done else [again])


def test_records_are_asked_for_once_a_batch_and_only_for_redelivered_ones() -> None:
    bench = FetcherBench()
    first, second = delivery(redelivered=True), delivery(redelivered=True)
    admit(bench, first, delivery(), second)
    assert bench.store is not None
    assert bench.store.log == [("get", [first.message.id, second.message.id])]


def test_a_store_that_is_away_does_not_stop_a_redelivered_one() -> None:
    bench, again = FetcherBench(), delivery(redelivered=True)
    assert bench.store is not None
    bench.store.faults.away("get")
    admit(bench, again)
    assert bench.sync.inbox == [again]


def test_without_a_store_a_redelivered_one_runs() -> None:
    bench, again = FetcherBench(store=False), delivery(redelivered=True)
    admit(bench, again)
    assert bench.sync.inbox == [again]


def test_a_redelivered_malformed_one_costs_only_itself() -> None:
    bench, good = FetcherBench(), delivery()
    bad = Delivery(message=Malformed(reason="no", raw=b"x"), token="bad", queue="celery", redelivered=True)
    assert bench.store is not None
    bench.store.records[""] = record("SUCCESS")
    admit(bench, bad, good)
    assert isinstance(bench.outcome(bad), o.Discarded)
    assert bench.sync.inbox == [good]


# -- acknowledged early --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["early", "early_co"])
def test_an_early_acknowledgement_comes_before_the_run(name: str) -> None:
    bench, early, late = FetcherBench(), delivery(name), delivery("t")
    admit(bench, early, late)
    assert bench.broker.log == [("settle", [early.token])]
    assert bench.early == {early.token}
    assert early in bench.sync.inbox + bench.coroutines.inbox
    assert late in bench.sync.inbox


def test_a_refused_one_is_not_run_and_not_held() -> None:
    bench, lost, mine = FetcherBench(), delivery("early"), delivery("early")
    bench.broker.gone.add(lost.token)
    admit(bench, lost, mine)
    assert bench.sync.inbox == [mine]
    assert list(bench.fetcher.held) == [mine.token]
    assert bench.early == {mine.token}


def test_an_outage_before_the_acknowledgement_is_waited_for() -> None:
    bench, early = FetcherBench(), delivery("early")
    bench.broker.faults.away("settle", 3)
    admit(bench, early)
    assert bench.sync.inbox == [early]


def test_a_lost_answer_loses_no_task() -> None:
    """The first try was done and its answer lost, so the second is refused: within our lease that was us."""
    bench, early = FetcherBench(), delivery("early")
    bench.broker.faults.away("settle")
    bench.broker.gone.add(early.token)
    admit(bench, early)
    assert bench.sync.inbox == [early]
    assert bench.early == {early.token}


def test_a_refusal_after_our_lease_is_somebody_elses() -> None:
    bench, early = FetcherBench(), delivery("early")
    bench.runner.valid_until = time.monotonic() - 1
    bench.broker.faults.away("settle")
    bench.broker.gone.add(early.token)
    admit(bench, early)
    assert bench.sync.inbox == []
    assert bench.fetcher.held == {}


def test_what_is_lost_while_it_is_admitted_does_not_run() -> None:
    bench, early, late, lost = FetcherBench(), delivery("early"), delivery(), delivery()

    async def main() -> None:
        bench.broker.faults.away("settle")
        admitting = asyncio.create_task(bench.fetcher.admit([early, late, lost]))
        await asyncio.sleep(0)
        del bench.fetcher.held[lost.token]
        await admitting

    asyncio.run(main())
    assert bench.sync.inbox == [early, late]


def test_stopping_does_not_wait_for_a_broker_that_is_away() -> None:
    bench, early, late = FetcherBench(), delivery("early"), delivery()

    async def main() -> None:
        bench.broker.faults.away("settle", 10_000)
        admitting = asyncio.create_task(bench.fetcher.admit([early, late]))
        await asyncio.sleep(0)
        bench.fetcher.stop()
        await asyncio.wait_for(admitting, 30)

    asyncio.run(main())
    assert [each.settlement for each in bench.concluded] == [Release(early)]
    assert bench.sync.inbox == [late]
    assert bench.early == set()


# -- suspects ------------------------------------------------------------------------------------------------------


def suspect(**fields: Any) -> Delivery:
    return delivery(marks=Marks(suspect=True), **fields)


def test_a_suspect_alone_runs() -> None:
    bench, one = FetcherBench(), suspect()
    admit(bench, one)
    assert bench.sync.inbox == [one]


def test_suspects_in_company_go_back_and_the_innocents_run() -> None:
    bench, innocents = FetcherBench(), [delivery(), delivery()]
    first, second = suspect(), suspect()
    admit(bench, innocents[0], first, innocents[1], second)
    assert bench.sync.inbox == innocents
    assert [each.settlement for each in bench.concluded] == [Release(first), Release(second)]


def test_two_suspects_are_company() -> None:
    bench = FetcherBench()
    admit(bench, suspect(), suspect())
    assert bench.sync.inbox == []
    assert len(bench.concluded) == 2


def test_what_an_earlier_claim_holds_is_company() -> None:
    bench, one = FetcherBench(), suspect()
    admit(bench, delivery())
    admit(bench, one)
    assert bench.concluded[-1].settlement == Release(one)


def test_given_back_suspects_are_held_until_that_is_written() -> None:
    """Else an outage would let their leases run out, and that would count against them."""
    bench, one = FetcherBench(), suspect()
    admit(bench, delivery(), one)
    assert one.token in bench.fetcher.held


# -- giving back ---------------------------------------------------------------------------------------------------


def test_while_stopping_everything_goes_back_uncounted() -> None:
    bench, batch = FetcherBench(), [delivery(), delivery("early"), malformed()]
    bench.fetcher.stop()
    admit(bench, *batch)
    assert [each.settlement for each in bench.concluded] == [Release(each) for each in batch]
    assert bench.sync.inbox == []


def test_what_waits_behind_a_long_task_goes_back_in_order() -> None:
    bench, batch = FetcherBench(), [delivery() for _ in range(4)]
    admit(bench, *batch)
    bench.sync.start(1, time.monotonic())
    bench.fetcher.relieve(time.monotonic())
    assert bench.concluded == []
    bench.sync.running = [(batch[0], time.monotonic() - 2 * STALL)]
    bench.fetcher.relieve(time.monotonic())
    assert [each.settlement for each in bench.concluded] == [Release(each) for each in batch[1:]]
    assert bench.sync.waiting() == 0


def test_coroutines_behind_long_ones_go_back_too() -> None:
    bench, batch = FetcherBench(coroutines=1), [delivery("co"), delivery("co")]
    admit(bench, *batch)
    bench.coroutines.start(1, time.monotonic() - 2 * STALL)
    bench.fetcher.relieve(time.monotonic())
    assert [each.settlement for each in bench.concluded] == [Release(batch[1])]
    assert bench.fetcher.appetite.stalled is False


def test_an_early_one_that_did_not_start_is_published_again() -> None:
    bench, early, late = FetcherBench(), delivery("early"), delivery()
    admit(bench, early, late)
    bench.fetcher.recall_all()
    again, back = bench.concluded
    assert again.settlement == Accept(early)
    assert list(again.publish) == [early.message]
    assert back.settlement == Release(late)
    assert back.publish == ()


def test_recall_takes_from_both_executors() -> None:
    bench, batch = FetcherBench(), [delivery("t"), delivery("co")]
    admit(bench, *batch)
    bench.fetcher.recall_all()
    assert [each.settlement for each in bench.concluded] == [Release(each) for each in batch]
    assert (bench.sync.waiting(), bench.coroutines.waiting()) == (0, 0)


# -- where messages are signed -------------------------------------------------------------------------------------


def signed_bench() -> tuple[FetcherBench, Signer]:
    bench, signer = FetcherBench(), Signer(b"a key of sixteen bytes")
    bench.fetcher._refusals._signer = signer
    return bench, signer


def test_what_is_not_signed_is_refused_before_anything_else() -> None:
    bench, signer = signed_bench()
    plain, late = delivery("t"), delivery("nobody.knows", due=time.time() + 100)
    expired, own = delivery("t", expires=1.0), delivery("t")
    good = replace(own, message=signer.sign(own.message))  # type: ignore[arg-type]
    admit(bench, plain, late, expired, good)
    assert bench.sync.inbox == [good]
    for each in (plain, late, expired):
        assert bench.outcome(each) == o.Unsigned("signature missing")
    for completion in bench.concluded:
        assert isinstance(completion.settlement, DeadLetter)
        assert completion.settlement.reason is DeadReason.REFUSED
        assert (completion.result, completion.parts, completion.publish, completion.others) == (None, (), (), ())


def test_a_record_that_is_not_signed_shows_nothing() -> None:
    bench, signer = signed_bench()
    first, second = delivery("t", redelivered=True), delivery("t", redelivered=True)
    lent = [replace(each, message=signer.sign(each.message)) for each in (first, second)]  # type: ignore[arg-type]
    assert bench.store is not None
    bench.store.records = {
        first.message.id: record("SUCCESS"),
        second.message.id: signer.seal("result", second.message.id, record("SUCCESS")),
    }
    admit(bench, *lent)
    assert bench.sync.inbox == [lent[0]]
    assert isinstance(bench.outcome(lent[1]), o.Repeated)


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b"\xff", b"", b'{"status": 5}', b'{"status":"SUCCESS","result":' + b"[" * 9999]
)
def test_a_hostile_record_shows_nothing(raw: bytes) -> None:
    bench, lent = FetcherBench(), delivery("t", redelivered=True)
    assert bench.store is not None
    bench.store.records = {lent.message.id: raw}
    admit(bench, lent)
    assert bench.sync.inbox == [lent]
