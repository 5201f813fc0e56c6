"""Senders whom a signal interrupts, at every point: no transaction stays open, and no fork waits for them."""

from __future__ import annotations

import pytest

from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.connection import Connection
from celeriac.brokers.sqlite.forks import crossing
from celeriac.brokers.sqlite.publisher_port import SQLitePublisher
from celeriac.model.message import Message
from celeriac.ports import AdapterOptions
from tests.strikes import STRIKES, each_strike, struck


def message(task_id: str) -> Message:
    return Message(id=task_id, task="t", headers={"id": task_id, "task": "t"}, queue="q", body=b"[[], {}, {}]")


@pytest.mark.parametrize("error", STRIKES)
@pytest.mark.parametrize("warm", [True, False], ids=["a connection", "none yet"])
def test_a_sender(address: Address, connection: Connection, warm: bool, error: type[BaseException]) -> None:
    def count(on: Connection) -> int:
        return int(on.write(lambda sqlite: sqlite.execute("SELECT count(*) FROM message").fetchone()[0]))

    def run(at: int) -> str:
        publisher = SQLitePublisher(address, AdapterOptions())
        if warm:
            publisher.publish([message("w")], timeout=0.0)
        before = count(connection)
        mine = message(str(at))
        where, raised = struck(lambda: publisher.publish([mine], timeout=0.0), error, at)
        assert (type(raised) is error) is bool(where), f"{where}: {raised!r}"
        assert crossing._inside == set(), where
        assert not crossing._gate.locked(), where
        # Another process can write at once, and so can the next one who sends from here.
        assert count(connection) in ({before, before + 1} if where else {before + 1}), where
        publisher.publish([message("n")], timeout=0.0)
        publisher.close()
        return where

    assert len(each_strike(run)) > 40
