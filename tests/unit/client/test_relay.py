"""The relay over a SQLite outbox and a memory broker: what goes out, what stays, and why."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chord
from celeriac.client.relay import Relay
from celeriac.exceptions import OperationalError
from celeriac.model.message import Message
from celeriac.outbox.stores import store_of
from tests.servers import wait_until

_numbers = itertools.count()


class Publisher:
    """The broker's, with outages and refusals, and without a ledger."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.away = False
        self.refuses: set[str] = set()
        self.bad: set[str] = set()
        self.calls: list[list[str]] = []

    def _check(self, messages: Sequence[Message]) -> None:
        if self.away:
            raise OperationalError("the broker is away")
        self.calls.append([message.task for message in messages])
        for message in messages:
            if message.task in self.refuses:
                raise OperationalError("no room for this one")
            if message.task in self.bad:
                raise ValueError("not this header")

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        self._check(messages)
        self.real.publish(messages, timeout=timeout)

    def depth(self, queues: Sequence[str], *, timeout: float) -> Any:
        if self.away:
            raise OperationalError("the broker is away")
        return self.real.depth(queues, timeout=timeout)

    def close(self) -> None:
        pass


class AtOnce(Publisher):
    """With a ledger."""

    def publish_once(self, messages: Any, *, expires: float, timeout: float) -> Any:
        self._check(list(messages.values()))
        return self.real.publish_once(messages, expires=expires, timeout=timeout)


class Bench:
    def __init__(self, folder: Path, publisher: type[Publisher] = AtOnce) -> None:
        self.path = folder / "application.db"
        self.url = f"sqlite:///{self.path}"
        self.app = Celery("shop", broker=f"memory://relay-{next(_numbers)}", outbox_url=self.url, set_as_current=True)
        self.app.task(name="add", shared=False)(lambda a=1: a)
        self.app.task(name="total", shared=False)(lambda numbers: sum(numbers))
        self.store = store_of(self.url)
        self.store.create()
        self.publisher = publisher(self.app.sender.publisher)
        self.relay = Relay(self.app, self.store, "here", rand=lambda: 1.0)
        self.connection = sqlite3.connect(self.path)

    def commit(self, *names: str) -> None:
        with self.connection, self.app.transaction(self.connection):
            for name in names:
                self.app.send_task(name)

    def ready(self) -> int:
        return int(self.publisher.real.depth(["celery"], timeout=1.0)["celery"].ready)


@contextmanager
def opened(folder: Path, publisher: type[Publisher] = AtOnce) -> Iterator[Bench]:
    made = Bench(folder, publisher)
    with made.app.sender._publisher.standing_in(made.publisher):  # type: ignore[arg-type]
        yield made
    made.relay.close()
    made.connection.close()
    made.app.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with opened(tmp_path) as made:
        yield made


@pytest.fixture(params=["with a ledger", "without"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A broker that publishes under keys, and one that cannot."""
    with opened(tmp_path, AtOnce if request.param == "with a ledger" else Publisher) as made:
        yield made


def test_rows_go_out_and_are_gone(either: Bench) -> None:
    either.commit("a", "b", "c")
    assert not either.relay.turn(), "there is no more"
    assert either.ready() == 3
    assert either.store.standing().waiting == 0
    assert either.relay.stats() | {"lag": 0.0} == {
        "outbox": "here", "relayed": 3, "failed": 0, "lag": 0.0, "error": "",
    }  # fmt: skip
    assert [task for call in either.publisher.calls for task in call] == ["a", "b", "c"]


def test_without_a_ledger_they_go_out_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(tmp_path, Publisher) as bench:
        bench.commit(*"abc")
        bench.commit(*"de")
        assert not bench.relay.turn()
        assert bench.publisher.calls == [list("abcde")]
        bench.commit("f")
        bench.relay.turn()
    assert [each.message for each in caplog.records if "ledger" in each.message] == [
        "Outbox here: what a relay that dies has published is sent again: no ledger there"
    ]


def test_more_than_a_batch(bench: Bench) -> None:
    bench.commit(*["a"] * 450)
    assert [bench.relay.turn() for _ in range(3)] == [True, True, False]
    assert bench.ready() == 450


def test_a_bad_row_stays_and_blocks_nobody(either: Bench, caplog: pytest.LogCaptureFixture) -> None:
    either.publisher.bad = {"bad"}
    either.commit("a", "bad", "b")
    assert either.relay.turn(), "look again at once"
    assert either.ready() == 2
    (row,) = either.store.list(failed=None, limit=10)
    assert (row.parcel.task, row.failed, row.attempts, row.error) == ("bad", True, 1, "ValueError: not this header")
    assert "bad[" in caplog.text
    assert "stays there until `celeriac outbox retry` or `drop`: not this header" in caplog.text
    assert not either.relay.turn()
    assert (either.relay.stats()["relayed"], either.relay.stats()["failed"]) == (2, 1)
    either.publisher.bad = set()
    assert either.store.retry([row.parcel.task_id]) == 1
    either.relay.turn()
    assert (either.ready(), either.store.standing().failed) == (3, 0)


def test_bytes_that_are_no_message(bench: Bench) -> None:
    bench.commit("a", "b")
    with bench.connection:
        bench.connection.execute("UPDATE celeriac_outbox SET body = x'00' WHERE task = 'a'")
    bench.relay.turn()
    (row,) = bench.store.list(failed=True, limit=10)
    assert row.parcel.task == "a"
    assert "DecodeError: not an envelope" in row.error
    assert bench.ready() == 1


def test_a_refused_row_waits_and_others_pass_it(either: Bench) -> None:
    either.publisher.refuses = {"large"}
    either.commit("a", "large", "b")
    either.relay.turn()
    assert either.ready() == 2
    (row,) = either.store.list(failed=None, limit=10)
    assert (row.failed, row.attempts, row.error) == (False, 1, "no room for this one")
    assert not either.relay.turn(), "not yet"
    assert either.store.standing().waiting == 1, "it is not given up"
    either.publisher.refuses = set()
    assert either.store.retry([row.parcel.id]) == 1, "at once, when somebody says so"
    either.relay.turn()
    assert either.ready() == 3


def test_a_broker_that_is_away_is_nobodys_fault(either: Bench) -> None:
    either.commit("a", "b")
    either.publisher.away = True
    with pytest.raises(OperationalError, match="away"):
        either.relay.turn()
    assert [(row.attempts, row.error) for row in either.store.list(failed=None, limit=10)] == [(0, "")] * 2
    either.publisher.away = False
    either.relay.turn()
    assert either.ready() == 2


def test_what_was_published_under_its_key_is_not_again(bench: Bench) -> None:
    bench.commit("a", "b")
    settle, bench.store.settle = bench.store.settle, _dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.relay.turn()
    assert bench.ready() == 2
    bench.store.settle = settle  # type: ignore[method-assign]
    assert not bench.relay.turn()
    assert (bench.ready(), bench.store.standing().waiting) == (2, 0)


def _dies(done: Any, faults: Any) -> None:
    raise KeyboardInterrupt


def test_a_chord_is_opened_by_the_relay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(bench.app.backend, "write_chords", opened.extend)
    add, total = bench.app.tasks["add"], bench.app.tasks["total"]
    with bench.connection, bench.app.transaction(bench.connection):
        result = chord([add.s(1), add.s(2)])(total.s())
        assert not opened
    bench.relay.turn()
    assert [(each.id, each.size) for each in opened] == [(result.parent.id, 2)]
    assert b"total" in opened[0].body
    assert bench.ready() == 2


def test_the_loop_outlives_outages_and_ends_when_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    bench.publisher.away = True
    bench.commit("a")
    thread = threading.Thread(target=bench.relay.run, args=(stop,))
    thread.start()
    wait_until(lambda: bench.relay.stats()["error"] == "the broker is away")
    assert bench.relay.stats()["lag"] > 0
    bench.publisher.away = False
    wait_until(lambda: bench.ready() == 1)
    wait_until(lambda: "relaying again" in caplog.text)
    assert "nothing is relayed, next try in 0.1 s: the broker is away" in caplog.text
    bench.commit("b")
    wait_until(lambda: bench.ready() == 2)
    stop.set()
    thread.join(30.0)
    assert not thread.is_alive()
    assert bench.relay.stats()["error"] == ""


def test_rows_that_waited_long_are_told(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.commit("a")
    with bench.connection:
        bench.connection.execute("UPDATE celeriac_outbox SET created = created - 100")
    bench.publisher.away = True
    for _ in range(3):
        with pytest.raises(OperationalError):
            bench.relay.turn()
    told = [each.message for each in caplog.records if "has waited" in each.message]
    assert told == ["Outbox here: the oldest of its rows has waited for 100 s"], "once a minute"
