"""``plan``: every outcome, every rule, as a table; and what must hold for all of them, by Hypothesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac import states
from celeriac.exceptions import NotRegistered, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celeriac.model import outcome as o
from celeriac.model.message import NO_MARKS, Delivery, Malformed, Marks, Message
from celeriac.model.options import TaskOptions
from celeriac.model.outcome import Embed
from celeriac.model.plan import UNKNOWN_TASK_RETRY, Plan, Send, exhausted, plan
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release

NOW = 1_000_000.0
OPTIONS = TaskOptions(name="proj.add")


def delivery(marks: Marks = NO_MARKS, **headers: Any) -> Delivery:
    full = {"task": "proj.add", "id": "id-1", "root_id": "root-1", **headers}
    message = Message(id="id-1", task="proj.add", headers=full, body=b"", queue="celery")
    return Delivery(message=message, token="t:1", queue="celery", raw=b"raw", marks=marks)


def decide(outcome: o.Outcome, *, lent: Delivery | None = None, options: TaskOptions = OPTIONS, **more: Any) -> Plan:
    return plan(lent or delivery(), outcome, options, NOW, 0.5, worker="w@h", **more)


def test_a_success_is_accepted_and_stored() -> None:
    decided = decide(o.Success(5))
    assert decided == Plan(settlement=Accept(delivery()), state=states.SUCCESS, value=5, event="succeeded")


@pytest.mark.parametrize(
    ("options", "headers"), [(TaskOptions(name="x", ignore_result=True), {}), (OPTIONS, {"ignore_result": True})]
)
def test_an_ignored_result_is_not_stored(options: TaskOptions, headers: dict[str, Any]) -> None:
    lent = delivery(**headers)
    assert decide(o.Success(5), lent=lent, options=options).state is None
    assert decide(o.Failure(ValueError()), lent=lent, options=options).state is None
    assert decide(o.Revoked("expired"), lent=lent, options=options).state is None


def test_errors_may_be_stored_all_the_same() -> None:
    options = TaskOptions(name="x", ignore_result=True, store_errors_even_if_ignored=True)
    assert decide(o.Failure(ValueError()), options=options).state == states.FAILURE
    assert decide(o.Success(1), options=options).state is None


def test_a_success_calls_callbacks_then_the_next_step_with_the_rest() -> None:
    embed = Embed(callbacks=[{"task": "cb"}], chain=[{"task": "last"}, {"task": "next"}])
    sends = decide(o.Success(5), embed=embed).sends
    lineage = {"parent_id": "id-1", "root_id": "root-1"}
    assert sends == (
        Send({"task": "cb"}, (5,), lineage),
        Send({"task": "next"}, (5,), {**lineage, "chain": [{"task": "last"}]}),
    )


def test_the_last_step_of_a_chain_carries_no_rest() -> None:
    sends = decide(o.Success(5), embed=Embed(chain=[{"task": "last"}])).sends
    assert "chain" not in sends[0].options


def test_a_failure_is_stored_told_and_kept() -> None:
    error = ValueError("bad")
    decided = decide(o.Failure(error, "tb"), embed=Embed(errbacks=[{"task": "eb"}]))
    assert decided.state == states.FAILURE
    assert decided.value is error
    assert decided.traceback == "tb"
    assert decided.sends == (Send({"task": "eb"}, ("id-1",), {"parent_id": "id-1", "root_id": "root-1"}),)
    dead = decided.settlement
    assert isinstance(dead, DeadLetter)
    assert (dead.reason, dead.exception, dead.traceback) == (DeadReason.FAILED, "ValueError: bad", "tb")
    assert (dead.worker, dead.at) == ("w@h", NOW)


def test_an_expected_error_fails_without_a_dead_letter() -> None:
    decided = decide(o.Failure(KeyError("k")), options=TaskOptions(name="x", throws=(LookupError,)))
    assert isinstance(decided.settlement, Accept)
    assert decided.state == states.FAILURE


def test_an_error_whose_text_raises_is_still_described() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    dead = decide(o.Failure(Nasty())).settlement
    assert isinstance(dead, DeadLetter)
    assert dead.exception == "Nasty"


def test_a_retry_is_accepted_and_sent_again() -> None:
    error = KeyError("k")
    decided = decide(o.RetryAsked(error, "tb", "signature"))
    assert (decided.settlement, decided.state) == (Accept(delivery()), states.RETRY)
    assert (decided.value, decided.sends) == (error, (Send("signature"),))


def test_ignore_and_reject() -> None:
    assert decide(o.Ignored(replaced=True)) == Plan(settlement=Accept(delivery()))
    ignored = decide(o.Ignored())
    assert (ignored.settlement, ignored.state, ignored.sends) == (Accept(delivery()), None, ())
    back = decide(o.Rejected("later", True)).settlement
    assert back == Release(delivery(), back=True)
    dead = decide(o.Rejected("never", False)).settlement
    assert isinstance(dead, DeadLetter)
    assert dead.reason is DeadReason.REJECTED


@pytest.mark.parametrize("reason", ["expired", "revoked", "terminated"])
def test_a_revoked_task_says_why(reason: str) -> None:
    decided = decide(o.Revoked(reason))
    assert (decided.settlement, decided.state) == (Accept(delivery()), states.REVOKED)
    assert isinstance(decided.value, TaskRevokedError)
    assert decided.value.args == (reason,)


def test_a_hard_limit_is_a_failure() -> None:
    decided = decide(o.TimedOut(3.0))
    assert isinstance(decided.value, TimeLimitExceeded)
    assert isinstance(decided.settlement, DeadLetter)
    assert decided.settlement.reason is DeadReason.TIME_LIMIT


def test_a_crash_is_counted_up_to_the_cap() -> None:
    first = decide(o.Crashed("signal 9")).settlement
    assert first == Release(delivery(), marks=Marks(crashes=1, suspect=True))
    twice = delivery(Marks(crashes=1, expired_leases=4))
    second = decide(o.Crashed("signal 9"), lent=twice).settlement
    assert second == Release(twice, marks=Marks(crashes=2, suspect=True, expired_leases=4))
    last = decide(o.Crashed("signal 9"), lent=delivery(Marks(crashes=2)))
    assert isinstance(last.settlement, DeadLetter)
    assert last.settlement.reason is DeadReason.CRASHED
    assert last.settlement.delivery.marks.crashes == 3
    assert isinstance(last.value, WorkerLostError)
    assert last.state == states.FAILURE


def test_what_is_lost_too_often_must_not_run_again() -> None:
    for marks, expected in (
        (Marks(), False),
        (Marks(crashes=2, suspect=True, expired_leases=9), False),
        (Marks(crashes=3), True),
        (Marks(expired_leases=10), True),
    ):
        assert exhausted(marks, OPTIONS) is expected
    patient = TaskOptions(name="x", max_expired_leases=None)
    assert not exhausted(Marks(expired_leases=10_000), patient)


def test_the_cap_of_lost_leases() -> None:
    decided = decide(
        o.Lost(), lent=delivery(Marks(crashes=1, expired_leases=10)), embed=Embed(errbacks=[{"task": "e"}])
    )
    assert isinstance(decided.settlement, DeadLetter)
    assert decided.settlement.reason is DeadReason.LEASE_EXPIRED
    assert decided.settlement.detail == "its lease ran out 10 times"
    assert isinstance(decided.value, WorkerLostError)
    assert (decided.state, decided.event, len(decided.sends)) == (states.FAILURE, "failed", 1)
    crashed = decide(o.Lost(), lent=delivery(Marks(crashes=3, expired_leases=4))).settlement
    assert isinstance(crashed, DeadLetter)
    assert crashed.reason is DeadReason.CRASHED


def test_an_unknown_task_is_parked_then_fails() -> None:
    first = decide(o.Unknown(), park=60.0).settlement
    assert first == Release(delivery(), due=NOW + UNKNOWN_TASK_RETRY, marks=Marks(parked_until=NOW + 60), back=True)
    waiting = delivery(Marks(parked_until=NOW + 2))
    assert decide(o.Unknown(), lent=waiting).settlement == Release(
        waiting, due=NOW + 2, marks=Marks(parked_until=NOW + 2), back=True
    )
    # Whoever wrote the mark had a clock that was an hour ahead.
    ahead = decide(o.Unknown(), lent=delivery(Marks(parked_until=NOW + 3600)), park=60.0).settlement
    assert isinstance(ahead, Release)
    assert ahead.marks == Marks(parked_until=NOW + 60)
    over = decide(o.Unknown(), lent=delivery(Marks(parked_until=NOW)))
    assert isinstance(over.value, NotRegistered)
    assert isinstance(over.settlement, DeadLetter)
    assert over.settlement.reason is DeadReason.UNKNOWN_TASK


def test_bad_content_is_kept_with_its_reason() -> None:
    refused = decide(o.Discarded(ValueError("pickle"), "pickle is refused")).settlement
    assert isinstance(refused, DeadLetter)
    assert (refused.reason, refused.detail) == (DeadReason.REFUSED, "pickle is refused")
    broken = Delivery(message=Malformed(reason="no JSON", raw=b"{"), token="t", queue="celery", raw=b"{")
    decided = decide(o.Discarded(ValueError("x"), "no JSON"), lent=broken)
    assert isinstance(decided.settlement, DeadLetter)
    assert decided.settlement.reason is DeadReason.MALFORMED
    assert decided.state is None


def test_what_did_not_start_goes_back_as_it_came() -> None:
    assert decide(o.Unstarted()).settlement == Release(delivery())
    assert decide(o.Unstarted(suspect=True)).settlement == Release(delivery(), marks=Marks(suspect=True))
    assert decide(o.Unstarted(orphaned=True)).settlement == Release(delivery(), marks=Marks())
    known = delivery(Marks(suspect=True))
    again = decide(o.Unstarted(suspect=True), lent=known).settlement
    assert again == Release(known, marks=Marks(suspect=True)), "what may have run is shown as redelivered"


@pytest.mark.parametrize("outcome", [o.Unstarted(suspect=True), o.Unstarted(orphaned=True), o.Unknown()])
def test_what_did_not_start_keeps_its_place_under_a_rate(outcome: o.Outcome) -> None:
    settlement = decide(outcome, lent=delivery(Marks(reserved=True, crashes=1))).settlement
    assert isinstance(settlement, Release)
    assert settlement.marks is not None
    assert (settlement.marks.reserved, settlement.marks.crashes) == (True, 1)


def test_what_has_started_has_no_place_any_more() -> None:
    settlement = decide(o.Crashed("signal 9"), lent=delivery(Marks(reserved=True, parked_until=9e9))).settlement
    assert settlement == Release(delivery(Marks(reserved=True, parked_until=9e9)), marks=Marks(crashes=1, suspect=True))


def test_a_repeat_is_settled_without_a_trace() -> None:
    assert decide(o.Repeated()) == Plan(settlement=Accept(delivery()))


@pytest.mark.parametrize(
    ("stored", "reason", "exception"),
    [
        ({"exc_type": "ValueError", "exc_message": ["no", 5]}, DeadReason.FAILED, "ValueError: no"),
        ({"exc_type": "WorkerLostError", "exc_message": []}, DeadReason.CRASHED, "WorkerLostError"),
        ({"exc_type": "TimeLimitExceeded"}, DeadReason.TIME_LIMIT, "TimeLimitExceeded"),
        ("nonsense", DeadReason.FAILED, ""),
        ({"exc_type": ["odd"], "exc_message": 5}, DeadReason.FAILED, "['odd']"),
        ({"exc_type": None, "exc_message": {"a": 1}}, DeadReason.FAILED, ""),
    ],
)
def test_a_failure_that_came_back_is_kept(stored: object, reason: DeadReason, exception: str) -> None:
    """Who stored it may have died before its dead letter was written."""
    settlement = decide(o.Repeated(states.FAILURE, stored, apart=True)).settlement
    assert isinstance(settlement, DeadLetter)
    assert (settlement.reason, settlement.exception) == (reason, exception)


def test_a_failure_that_came_back_is_not_kept_twice_where_its_end_was_one_step() -> None:
    assert decide(o.Repeated(states.FAILURE, {"exc_type": "ValueError"})) == Plan(settlement=Accept(delivery()))


def test_an_expected_failure_that_came_back_is_not_kept() -> None:
    stored = {"exc_type": "KeyError", "exc_message": ["x"]}
    decided = decide(o.Repeated(states.FAILURE, stored, apart=True), options=TaskOptions(name="t", throws=(KeyError,)))
    assert decided == Plan(settlement=Accept(delivery()))


# -- workflows -----------------------------------------------------------------------------------------------------

BODY = {"task": "body"}
MEMBER = {"group": "g", "group_index": 2}
CHAIN = [
    {"task": "t", "options": {"task_id": "last", "group_id": "outer", "group_index": 1, "chord": BODY}},
    {"task": "t", "options": {"task_id": "next"}},
]

ENDS = [
    # outcome, the state that chords are told; None: it has not ended, or another one goes on in its place
    (o.Success(5), states.SUCCESS),
    (o.Failure(ValueError("no")), states.FAILURE),
    (o.Rejected("never", False), states.FAILURE),
    (o.Revoked("expired"), states.REVOKED),
    (o.TimedOut(3.0), states.FAILURE),
    (o.Ignored(), states.REVOKED),
    (o.Discarded(ValueError("x"), "x"), states.FAILURE),
    (o.Repeated(states.SUCCESS, 5), states.SUCCESS),
    (o.Repeated(states.FAILURE, ValueError("no")), states.FAILURE),
    (o.Repeated(states.REVOKED, ValueError("no")), states.REVOKED),
    (o.Repeated(), None),
    (o.Repeated(states.RETRY), None),
    (o.RetryAsked(ValueError(), "tb", "signature"), None),
    (o.Rejected("later", True), None),
    (o.Ignored(replaced=True), None),
    (o.Crashed("signal 9"), None),
    (o.Unknown(), None),
    (o.Unstarted(suspect=True), None),
]


@pytest.mark.parametrize(("outcome", "state"), ENDS, ids=repr)
def test_a_member_joins_its_chord_once_it_has_ended(outcome: o.Outcome, state: str | None) -> None:
    joins = decide(outcome, lent=delivery(**MEMBER), embed=Embed(chord=BODY)).joins
    assert [(join.chord, join.id, join.index, join.body, join.state) for join in joins] == (
        [] if state is None else [("g", "id-1", 2, BODY, state)]
    )


@pytest.mark.parametrize(("outcome", "state"), ENDS, ids=repr)
def test_what_is_behind_an_end_that_is_no_success_is_told_so(outcome: o.Outcome, state: str | None) -> None:
    decided = decide(outcome, embed=Embed(chain=CHAIN))
    if state is None or state == states.SUCCESS:
        assert (decided.abandoned, decided.joins) == ((), ())
        return
    # Of a repeat, an earlier delivery has stored them.
    assert [step.id for step in decided.abandoned] == ([] if isinstance(outcome, o.Repeated) else ["last", "next"])
    assert [(join.chord, join.id, join.index, join.state) for join in decided.joins] == [("outer", "last", 1, state)]
    assert isinstance(outcome, o.Repeated) or decided.ends == state


def test_the_cap_of_crashes_and_the_end_of_parking_are_ends() -> None:
    for outcome, marks in ((o.Crashed("signal 9"), Marks(crashes=2)), (o.Unknown(), Marks(parked_until=NOW))):
        (join,) = decide(outcome, lent=delivery(marks, **MEMBER), embed=Embed(chord=BODY)).joins
        assert (join.state, join.value) == (states.FAILURE, decide(outcome, lent=delivery(marks)).value) or join.value


def test_a_body_that_could_not_be_read_leaves_the_chord_to_the_store() -> None:
    (join,) = decide(o.Discarded(ValueError("x"), "x"), lent=delivery(**MEMBER)).joins
    assert (join.chord, join.body) == ("g", None)


def test_what_ignores_its_result_joins_all_the_same() -> None:
    options = TaskOptions(name="x", ignore_result=True)
    for outcome in (o.Success(5), o.Failure(ValueError())):
        decided = decide(outcome, lent=delivery(**MEMBER), options=options, embed=Embed(chord=BODY))
        assert (decided.state, len(decided.joins)) == (None, 1)


def test_a_member_of_a_plain_group_joins_nothing() -> None:
    for outcome, _ in ENDS:
        assert decide(outcome, lent=delivery(**MEMBER), embed=Embed()).joins == ()


def test_a_malformed_message_tells_nobody() -> None:
    broken = Delivery(message=Malformed(reason="no JSON", raw=b"{"), token="t", queue="celery", raw=b"{")
    for outcome in (o.Discarded(ValueError("x"), "x"), o.Revoked("expired")):
        decided = decide(outcome, lent=broken)
        assert (decided.joins, decided.abandoned, decided.sends) == ((), (), ())


outcomes = st.one_of(
    st.builds(o.Success, st.integers()),
    st.builds(o.Failure, st.sampled_from([ValueError("x"), KeyError(1), OSError()])),
    st.builds(o.RetryAsked, st.just(ValueError()), st.text(), st.just("sig")),
    st.just(o.Ignored()),
    st.builds(o.Rejected, st.text(), st.booleans()),
    st.builds(o.Revoked, st.sampled_from(["revoked", "expired"])),
    st.builds(o.TimedOut, st.floats(0.1, 10)),
    st.builds(o.Crashed, st.text()),
    st.just(o.Unknown()),
    st.just(o.Lost()),
    st.builds(o.Discarded, st.just(ValueError()), st.text()),
    st.builds(o.Unsigned, st.text()),
    st.just(o.Repeated()),
    st.builds(o.Unstarted, st.booleans()),
)
all_marks = st.builds(
    Marks, crashes=st.integers(0, 5), suspect=st.booleans(), parked_until=st.none() | st.floats(NOW - 99, NOW + 99)
)


@given(outcomes, all_marks, st.booleans(), st.booleans(), st.booleans())
def test_every_outcome_settles_its_own_delivery_and_loses_nothing(
    outcome: o.Outcome, marks: Marks, ignore: bool, expected: bool, followed: bool
) -> None:
    lent = delivery(marks)
    throws = (Exception,) if expected else ()
    embed = Embed(callbacks=[{"task": "c"}], errbacks=[{"task": "e"}], chain=[{"task": "n"}]) if followed else None
    options = TaskOptions(name="x", ignore_result=ignore, throws=throws)
    decided = plan(lent, outcome, options, NOW, 0.5, embed=embed)
    settled = decided.settlement.delivery
    # The last crash is counted in what is kept.
    assert settled is lent or (settled.token, settled.raw, settled.message) == (lent.token, lent.raw, lent.message)
    if decided.state == states.FAILURE:
        # A failure is never only accepted, unless the task said that it expects it.
        assert isinstance(decided.settlement, DeadLetter) or expected
    if isinstance(decided.settlement, Release):
        assert decided.state is None, "what runs again has no end yet"
        assert not decided.sends, "what runs again must not be followed twice"
    if decided.state is None and isinstance(decided.settlement, Accept):
        assert ignore or isinstance(outcome, (o.Ignored, o.Repeated))


def test_what_needs_something_that_is_away_is_offered_again_uncounted() -> None:
    assert decide(o.Postponed(5.0)) == Plan(settlement=Release(delivery(), due=NOW + 5.0))
