from __future__ import annotations

from typing import Any

import pytest

from celeriac import states
from celeriac.exceptions import Reject
from celeriac.model import outcome as o
from celeriac.model.ledger import LOCK, LOCK_LIFE, Change, Lock, lock_of, waiting_id
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.options import TaskOptions
from celeriac.model.plan import plan


def carrying(header: Any) -> Message:
    return Message(id="i", task="t", headers={LOCK: header}, body=b"")


def test_a_message_carries_its_lock() -> None:
    kinds = [{}, {"kept": True}, {"sole": True}, {"kept": True, "sole": True}]
    for lock in (Lock("k", "i", 5.0, True), *(Lock("k", "i", **kind) for kind in kinds)):
        assert lock_of(carrying(lock.header())) == lock


@pytest.mark.parametrize(
    "header", [None, "k", 7, [], {}, {"key": ""}, {"key": 7, "for": 1.0}, {"for": 1.0, "until": "end"}]
)
def test_what_is_no_lock_is_none(header: Any) -> None:
    assert lock_of(carrying(header)) is None
    assert lock_of(Message(id="i", task="t", headers={}, body=b"")) is None
    assert lock_of(Malformed(reason="r", raw=b"")) is None


@pytest.mark.parametrize("life", [None, "1", 0, -1, float("inf"), float("nan"), [1]])
def test_a_life_time_that_is_none_is_the_usual_one(life: Any) -> None:
    assert lock_of(carrying({"key": "k", "for": life})) == Lock("k", "i", LOCK_LIFE)


def test_what_stands_under_a_key() -> None:
    lock = Lock("k", "order started", 9.0)
    assert waiting_id(lock.waiting.removesuffix(b" started")) == ("order", True)
    assert waiting_id(Lock("k", "i").waiting) == ("i", True)
    assert waiting_id(Lock("k", "i").started) == ("i", False)
    assert Lock("k", "i", 9.0).begins() == Change("k", b"i started", b"i", 9.0)
    assert Lock("k", "i", 9.0, True).begins() == Change("k", None, b"i")
    assert [change.expected for change in Lock("k", "i").ends()] == [b"i", b"i started"]


ENDS = {
    "success": o.Success(1),
    "failure": o.Failure(ValueError()),
    "ignored": o.Ignored(),
    "rejected": o.Rejected("no", False),
    "revoked": o.Revoked("revoked"),
    "expired": o.Revoked("expired"),
    "limit": o.TimedOut(1.0),
    "refused": o.Discarded(Reject("no"), "no"),
    "given up": o.Unknown(),
    "done before": o.Repeated(states.SUCCESS),
    "failed before": o.Repeated(states.FAILURE),
}
GOES_ON = {
    "retried": o.RetryAsked(ValueError(), "", None),
    "replaced by itself": o.Ignored(replaced=True),
    "requeued": o.Rejected("no", True),
    "crashed": o.Crashed("signal 9"),
    "retried before": o.Repeated(states.RETRY),
    "unknown before": o.Repeated(None),
    "unstarted": o.Unstarted(),
    "lost": o.Unstarted(suspect=True, orphaned=True),
    "a stranger's, under that id": o.Unsigned("signature missing"),
}


@pytest.mark.parametrize("way", [*ENDS, *GOES_ON])
def test_the_end_of_a_task_frees_its_lock(way: str) -> None:
    lock = Lock("k", "i", 5.0)
    delivery = Delivery(message=carrying(lock.header()), token="t", queue="q")
    decided = plan(delivery, {**ENDS, **GOES_ON}[way], TaskOptions(name="t"), 100.0, 0.5, park=0.0)
    assert decided.frees == ((lock,) if way in ENDS else ())


@pytest.mark.parametrize("way", [*ENDS, *GOES_ON])
def test_a_lock_that_tells_of_the_past_is_never_freed(way: str) -> None:
    delivery = Delivery(message=carrying(Lock("k", "i", kept=True).header()), token="t", queue="q")
    decided = plan(delivery, {**ENDS, **GOES_ON}[way], TaskOptions(name="t"), 100.0, 0.5, park=0.0)
    assert decided.frees == ()


@pytest.mark.parametrize("way", list(ENDS))
def test_who_holds_none_frees_none(way: str) -> None:
    delivery = Delivery(message=Message(id="i", task="t", headers={}, body=b""), token="t", queue="q")
    assert plan(delivery, ENDS[way], TaskOptions(name="t"), 100.0, 0.5, park=0.0).frees == ()


def test_an_unknown_task_that_is_parked_keeps_its_lock() -> None:
    delivery = Delivery(message=carrying(Lock("k", "i").header()), token="t", queue="q")
    assert plan(delivery, o.Unknown(), TaskOptions(name="t"), 100.0, 0.5, park=60.0).frees == ()
