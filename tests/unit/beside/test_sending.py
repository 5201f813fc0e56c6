"""Keys around a sending on another server: who dies or fails in between, and what others are told meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from celeriac.beside.publisher_port import BesidePublisher
from celeriac.beside.sending import MARGIN, hold
from celeriac.exceptions import EncodeError, ImproperlyConfigured, OperationalError, SoftTimeLimitExceeded
from celeriac.model.ledger import ANY, LOCK, Change, Lock
from celeriac.model.message import Message
from tests.unit.beside.fakes import FakeLedger
from tests.unit.worker.fakes import message


class Queues:
    """A publisher that fails as it is told."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.again: list[str] = []
        self.error: BaseException | None = None
        self.meanwhile: Any = None
        self.closed = 0

    def publish(self, messages: list[Message], *, timeout: float) -> None:
        if self.meanwhile is not None:
            self.meanwhile()
        if self.error is not None:
            raise self.error
        self.sent += [each.id for each in messages]
        self.again += [each.id for each in messages if each.headers.get("redelivered")]

    def rules(self, prefix: str, *, timeout: float) -> str:
        return f"rules of {prefix}"

    def set_rules(self, changes: Any, *, timeout: float) -> int:
        return len(changes)

    def depth(self, queues: Any, *, timeout: float) -> Any:
        return {"q": timeout}

    def purge(self, queue: str, *, timeout: float) -> int:
        return 3

    stage = launch = publish

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self) -> None:
        self.ledger, self.queues, self.desk = FakeLedger(), Queues(), Queues()
        self.publisher: Any = BesidePublisher(self.queues, self.ledger, self.desk)  # type: ignore[arg-type]

    def send(self, name: str, key: str = "k", life: float | None = 100.0, timeout: float = 5.0) -> Any:
        return self.publisher.publish_if(message(id=name), [Change(key, name.encode(), None, life)], timeout=timeout)


def uncertain() -> OperationalError:
    error = OperationalError("the answer was lost")
    error.uncertain = True
    return error


def test_three_steps() -> None:
    bench, during = Bench(), dict[str, Any]()
    bench.queues.meanwhile = lambda: during.update(bench.ledger.lives)
    assert bench.send("a") is None
    assert during["k"] == 5.0 + MARGIN, "held for a short time first"
    assert during["sending:a"] == 5.0 + 2 * MARGIN, "what says so lasts longer"
    assert (bench.ledger.values, bench.ledger.lives["k"]) == ({"k": b"a"}, 100.0)
    assert bench.send("b") == [b"a"]
    assert bench.queues.sent == ["a"]


@pytest.mark.parametrize("error", [OperationalError("away"), TypeError("no JSON"), EncodeError("no JSON")])
def test_what_was_not_sent_leaves_no_key(error: BaseException) -> None:
    bench = Bench()
    bench.ledger.values["k"] = b"old"
    bench.queues.error = error
    with pytest.raises(type(error)):
        bench.publisher.publish_if(message(id="a"), [Change("k", b"a", b"old", 100.0)], timeout=5.0)
    assert bench.ledger.values == {"k": b"old"}


def test_what_may_have_been_sent_keeps_its_key_for_a_while() -> None:
    bench = Bench()
    bench.queues.error = uncertain()
    with pytest.raises(OperationalError):
        bench.send("a")
    assert bench.ledger.values == {"k": b"a", "sending:a": b""}
    assert bench.ledger.lives["k"] == 10.0
    with pytest.raises(OperationalError, match="nobody knows yet"):
        bench.send("b", timeout=0.05)
    assert bench.ledger.values["k"] == b"a"
    bench.queues.error = None
    assert bench.send("a") is None, "the same message again"
    assert bench.queues.again == ["a"], "and whoever gets it knows that it may be the second"
    assert (bench.ledger.values, bench.ledger.lives["k"]) == ({"k": b"a"}, 100.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SoftTimeLimitExceeded()])
def test_who_is_interrupted_may_have_sent_it(error: BaseException) -> None:
    bench = Bench()
    bench.queues.error = error
    with pytest.raises(type(error)):
        bench.send("a")
    assert bench.ledger.values == {"k": b"a", "sending:a": b""}
    assert bench.ledger.lives["k"] == 10.0
    bench.queues.error = None
    with pytest.raises(OperationalError, match="nobody knows yet"):
        bench.send("b", timeout=0.05)
    assert bench.queues.sent == []


def test_a_second_try_that_cannot_be_sent_tells_nobody_of_the_first() -> None:
    bench = Bench()
    bench.queues.error = uncertain()
    with pytest.raises(OperationalError):
        bench.send("a")
    bench.queues.error = OperationalError("refused: the server is down by now")
    with pytest.raises(OperationalError, match="down"):
        bench.send("a")
    assert bench.ledger.values == {"k": b"a", "sending:a": b""}, "nobody knows of the first try, and nobody is told"
    assert bench.ledger.lives["k"] == 10.0, "and its key is free again soon"
    bench.queues.error = None
    with pytest.raises(OperationalError, match="nobody knows yet"):
        bench.send("b", timeout=0.05)


def test_what_a_worker_has_started_was_sent() -> None:
    bench = Bench()
    bench.queues.error = uncertain()
    with pytest.raises(OperationalError):
        bench.publisher.publish_if(locked("a"), [Change("lock", b"a", None, 100.0)], timeout=5.0)
    bench.ledger.values["lock"] = b"a started"
    assert bench.publisher.publish_if(locked("b"), [Change("lock", b"b", None, 100.0)], timeout=5.0) == [b"a started"]


def test_the_ledger_does_not_answer_before_the_message_is_sent() -> None:
    bench = Bench()
    real = bench.ledger.change

    def change(changes: Any, *, timeout: float) -> Any:
        bench.ledger.change = real  # type: ignore[method-assign]
        real(changes, timeout=timeout)
        raise uncertain()

    bench.ledger.change = change  # type: ignore[method-assign]
    with pytest.raises(OperationalError) as caught:
        bench.send("a")
    assert not caught.value.uncertain, "nothing was sent: it may be tried again"
    assert bench.send("a") is None
    assert bench.queues.sent == ["a"]


def test_a_process_that_stood_still_sends_nothing_under_keys_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, now = Bench(), [100.0]
    monkeypatch.setattr("celeriac.beside.publisher_port.time.monotonic", lambda: now[0])
    bench.ledger.before_change = [lambda: now.__setitem__(0, 130.0)]
    with pytest.raises(OperationalError, match="held for too long"):
        bench.send("a")
    assert (bench.ledger.values, bench.queues.sent) == ({}, [])


def test_nobody_is_told_of_a_task_that_is_not_sent_yet() -> None:
    bench = Bench()
    started, go = threading.Event(), threading.Event()
    told: list[Any] = []

    def meanwhile() -> None:
        bench.queues.meanwhile = None
        started.set()
        assert go.wait(30.0)

    bench.queues.meanwhile = meanwhile
    first = threading.Thread(target=lambda: told.append(("a", bench.send("a"))))
    first.start()
    assert started.wait(30.0)
    second = threading.Thread(target=lambda: told.append(("b", bench.send("b"))))
    second.start()
    second.join(0.1)
    assert second.is_alive(), "it waits for what becomes of the first"
    go.set()
    first.join(30.0)
    second.join(30.0)
    assert sorted(told, key=lambda each: each[0]) == [("a", None), ("b", [b"a"])]


def test_a_worker_was_faster_than_the_last_step() -> None:
    bench = Bench()
    bench.queues.meanwhile = lambda: bench.ledger.values.update(k=b"a started")
    assert bench.send("a") is None
    assert bench.ledger.values == {"k": b"a started"}
    bench.ledger.values.clear()
    bench.queues.meanwhile = lambda: bench.ledger.values.pop("k")
    assert bench.send("b") is None
    assert bench.ledger.values == {}, "it has ended by then"


def test_the_ledger_goes_away_behind_the_message(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.queues.meanwhile = lambda: bench.ledger.failing.append("change")
    assert bench.send("a") is None, "it is sent"
    assert "Cannot keep the keys of task t[a]" in caplog.text


def test_all_keys_or_none() -> None:
    bench = Bench()
    ledger = bench.ledger
    changes = [Change("one", b"a", None, 9.0), Change("two", b"a", None, 9.0), Change("note", b"n", ANY, 9.0)]
    ledger.before_change = [lambda: ledger.values.update(two=b"x")]  # between the look and the taking
    sending, there = hold(ledger, message(id="a"), changes, timeout=1.0)
    assert sending is None
    assert there == [None, b"x", None]
    assert ledger.values == {"two": b"x"}
    ledger.values.clear()
    assert bench.publisher.publish_if(message(id="a"), changes, timeout=1.0) is None
    assert ledger.values == {"one": b"a", "two": b"a", "note": b"n"}


def test_whoever_comes_too_late_leaves_no_mark() -> None:
    ledger = FakeLedger()
    ledger.before_change = [lambda: ledger.values.update(k=b"x")]  # between the look and the taking
    sending, there = hold(ledger, message(id="a"), [Change("k", b"a", None, 9.0)], timeout=1.0)
    assert (sending, there) == (None, [b"x"])
    assert ledger.values == {"k": b"x"}, "others would wait for it"


def test_a_holder_that_gives_up_between_two_looks() -> None:
    bench = Bench()
    ledger = bench.ledger
    ledger.values.update({"k": b"x", "sending:x": b""})
    real, looks = ledger.read, iter(range(100))

    def read(keys: Any, *, timeout: float) -> Any:
        if next(looks) == 1:
            ledger.values.clear()  # undone
        return real(keys, timeout=timeout)

    ledger.read = read  # type: ignore[method-assign]
    assert bench.send("a") is None
    assert ledger.values == {"k": b"a"}


def test_the_rest_is_passed_on() -> None:
    bench = Bench()
    assert bench.publisher.rules("pause:", timeout=1.0) == "rules of pause:"
    assert bench.publisher.set_rules([1, 2], timeout=1.0) == 2
    assert bench.publisher.purge("q", timeout=1.0) == 3
    assert bench.publisher.depth(["q"], timeout=1.0) == {"q": 1.0}
    bench.publisher.close()
    assert (bench.queues.closed, bench.desk.closed) == (1, 1)


def test_a_desk_that_keeps_no_rules() -> None:
    with pytest.raises(ImproperlyConfigured, match="set ledger_url"):
        BesidePublisher(Queues(), FakeLedger(), object())  # type: ignore[arg-type]


def locked(name: str) -> Message:
    return message(id=name, queue="q", headers={LOCK: Lock("lock", name).header()})


def test_the_lock_of_a_purged_task_gives_way() -> None:
    bench = Bench()
    publisher, values = bench.publisher, bench.ledger.values

    def send(name: str) -> Any:
        return publisher.publish_if(locked(name), [Change("lock", name.encode(), None, 100.0)], timeout=5.0)

    assert send("a") is None
    assert send("b") == [b"a"]
    assert publisher.purge("other", timeout=1.0) == 3
    assert send("b") == [b"a"], "another queue"
    publisher.purge("q", timeout=1.0)
    assert send("b") is None
    assert send("c") == [b"b"], "sent after the purge"
    publisher.purge("q", timeout=1.0)
    values["lock"] = b"b started"
    assert send("c") == [b"b started"], "a worker has it"


def test_a_purge_while_others_are_waited_for_is_none_of_a_later_send() -> None:
    bench = Bench()
    publisher, ledger = bench.publisher, bench.ledger
    ledger.values.update({"lock": b"x", "sending:x": b""})
    real, looks = ledger.read, iter(range(100))

    def read(keys: Any, *, timeout: float) -> Any:
        if next(looks) == 2:  # x gives up, and the queue is purged
            ledger.values.clear()
            publisher.purge("q", timeout=1.0)
        return real(keys, timeout=timeout)

    ledger.read = read  # type: ignore[method-assign]
    assert publisher.publish_if(locked("a"), [Change("lock", b"a", None, 100.0)], timeout=5.0) is None
    assert publisher.publish_if(locked("b"), [Change("lock", b"b", None, 100.0)], timeout=5.0) == [b"a"]


def test_a_key_outlives_a_purge() -> None:
    bench = Bench()
    assert bench.send("a") is None
    bench.publisher.purge("", timeout=1.0)
    assert bench.send("b") == [b"a"]
