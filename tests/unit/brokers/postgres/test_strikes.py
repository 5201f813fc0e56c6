"""Callers whom a signal interrupts, at every point: nobody gets an answer to another's question, or his transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import pq

from celeriac.brokers.postgres import blocking
from celeriac.brokers.postgres.address import address
from celeriac.brokers.postgres.blocking import Call, Pool
from celeriac.brokers.postgres.statements import VERSION
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from tests.strikes import STRIKES, each_strike, struck

STATUS = pq.TransactionStatus


class PGconn:
    """libpq, with a server that answers each statement with its first argument; as libpq does, it refuses to send while
    an answer was not taken."""

    def __init__(self, fd: int) -> None:
        self.socket = fd
        self.status = pq.ConnStatus.OK
        self._answers: list[Any] = []
        self._asked = False
        self._in_transaction = False

    @property
    def transaction_status(self) -> pq.TransactionStatus:
        if self._asked:
            return STATUS.ACTIVE
        return STATUS.INTRANS if self._in_transaction else STATUS.IDLE

    def send_prepare(self, name: bytes, text: bytes) -> None:
        self._ask(name, ())

    def send_query_prepared(self, name: bytes, values: Sequence[bytes], *_: object) -> None:
        self._ask(name, values)

    def send_query_params(self, text: bytes, values: Sequence[bytes], *_: object) -> None:
        self._ask(text, values)

    def _ask(self, what: bytes, values: Sequence[bytes]) -> None:
        if self._asked or self.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError("another command is already in progress")
        if what == b"BEGIN" and self._in_transaction:
            raise psycopg.OperationalError("there is already a transaction in progress")
        self._asked = True
        if what in {b"BEGIN", b"COMMIT", b"ROLLBACK"}:
            self._in_transaction = what == b"BEGIN"
        self._answers = [[(values[0] if values else VERSION,)]]

    def flush(self) -> int:
        return 0

    def is_busy(self) -> int:
        return 0

    def consume_input(self) -> None: ...

    def get_result(self) -> Any:
        if self._answers:
            return self._answers.pop()
        self._asked = False
        return None

    def notifies(self) -> None: ...

    def finish(self) -> None:
        self.status = pq.ConnStatus.BAD


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    reading, writing = os.pipe()
    monkeypatch.setattr(blocking, "_connected", lambda parameters, deadline: PGconn(reading))
    monkeypatch.setattr(blocking, "rows_of", lambda results: results[-1])
    pool = Pool(address("postgresql://somewhere", AdapterOptions()), 1)
    yield pool
    pool.close()
    os.close(reading)
    os.close(writing)


def asked(call: Any, number: int) -> Any:
    """What comes back of a number that is asked."""
    ((answer,),) = call("purge", (str(number), 1, b""))
    return answer


@pytest.mark.parametrize("error", STRIKES[:1])
@pytest.mark.parametrize("warm", [True, False], ids=["a connection", "none yet"])
@pytest.mark.parametrize("way", ["one", "transaction", "refused"])
def test_a_caller(pool: Pool, way: str, warm: bool, error: type[BaseException]) -> None:
    def ask(number: int) -> Any:
        return asked(lambda name, args: pool.call(name, args, 5.0), number)

    def work(call: Call) -> None:
        asked(call, 1)
        asked(call, 2)
        if way == "refused":
            raise psycopg.DataError("somebody's fault")

    def transaction() -> None:
        with pool.desk() as desk:
            desk.transaction(work, 5.0)

    def run(at: int) -> str:
        pool.close()
        if warm:
            ask(0)
        where, raised = struck((lambda: ask(3)) if way == "one" else transaction, error, at)
        if where:
            assert type(raised) is error, f"{where}: {raised!r}"
        else:
            assert isinstance(raised, OperationalError) if way == "refused" else raised is None
        for number in (4, 5):
            assert ask(number) == str(number).encode(), where
        with pool.desk() as desk:
            assert desk.transaction(lambda call: asked(call, 6), 5.0) == b"6", where
        return where

    assert len(each_strike(run)) > 30
