"""PostgreSQL: sessions that administrators end, restarts, poolers in transaction mode, several addresses, idle cost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from celeriac.brokers import postgres
from celeriac.brokers.postgres import blocking, line
from celeriac.brokers.postgres.address import address
from celeriac.brokers.postgres.broker_port import PostgresBroker
from celeriac.brokers.postgres.session import Session
from celeriac.brokers.postgres.wire import bare
from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.limits import GO, PARKED, Ask, Seats
from celeriac.model.settle import Accept, Completion, Release, StoredResult, Verdict
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import ids, message
from celeriac.worker.completer import Completer
from tests.proxy import Proxy
from tests.servers import PostgresServer, eventually, free_port, wait_until
from tests.servers.lame import lame_host, reaches


def _options(**transport: object) -> AdapterOptions:
    return AdapterOptions(owner="test", transport=transport, connect_timeout=3.0)


def test_an_administrator_ends_all_sessions(postgres_server: PostgresServer, postgres_url: str) -> None:
    async def main() -> None:
        broker, store = postgres.broker(postgres_url, _options()), postgres.store(postgres_url, _options())
        publisher, reader = postgres.publisher(postgres_url, _options()), postgres.reader(postgres_url, _options())
        await broker.open()
        await store.open()
        await asyncio.to_thread(publisher.publish, [message("a")], timeout=30.0)
        await asyncio.to_thread(reader.get, ["a"], timeout=30.0)
        (held,) = await broker.claim(["q"], limit=5, wait=0.0)
        assert postgres_server.terminate_all() >= 4
        await eventually(lambda: _sessions(postgres_server) == 0, 60, "they have ended")
        # A pooled connection that is gone is found before anything is sent, so nothing raises here.
        await asyncio.to_thread(publisher.publish, [message("b")], timeout=30.0)
        assert await asyncio.to_thread(reader.get, ["a"], timeout=30.0) == [None]
        # The loop has read that its connection is gone.
        assert ids(await broker.claim(["q"], limit=5, wait=60.0)) == ["b"]
        assert list(await broker.settle([Accept(held)])) == []
        await store.put([StoredResult("a", b"{}", True)])
        publisher.close()
        reader.close()
        await broker.close()
        await store.close()

    asyncio.run(main())


def test_a_waiting_claim_survives_the_end_of_its_session(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celeriac.brokers.postgres.claims.LOOK_AGAIN", 60.0)  # so that only being woken helps

    async def main() -> None:
        broker, publisher = postgres.broker(postgres_url, _options()), postgres.publisher(postgres_url, _options())
        await broker.open()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=60.0))
        await eventually(lambda: _sleeps(postgres_server), 60, "it waits")
        postgres_server.terminate_all()
        # It connects anew, says again that it waits, and is woken.
        await eventually(lambda: _sleeps(postgres_server), 60, "it waits again")
        await asyncio.to_thread(publisher.publish, [message("a")], timeout=30.0)
        async with asyncio.timeout(30.0):
            assert ids(await waiting) == ["a"]
        publisher.close()
        await broker.close()

    asyncio.run(main())


@pytest.mark.parametrize("by", ["publish", "follow-up", "release", "chord", "seat"])
def test_a_claim_is_woken_by_its_own_connection(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The server tells nobody when the only one who waits is the one who writes."""
    monkeypatch.setattr("celeriac.brokers.postgres.claims.LOOK_AGAIN", 60.0)  # so that only being woken helps

    async def main() -> None:
        broker = postgres.broker(postgres_url, _options())
        await broker.open()
        await broker.publish([message("a"), message("b")])
        first, second = await broker.claim(["q"], limit=2, wait=0.0)
        seats = Seats("key", 1)
        if by == "seat":
            assert list(await broker.permit([Ask(first, seats=seats), Ask(second, seats=seats)])) == [GO, PARKED]
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=60.0))
        await eventually(lambda: _sleeps(postgres_server), 60, "it waits")
        if by == "publish":
            await broker.publish([message("b")])
        elif by == "follow-up":
            await broker.finish([Completion(settlement=Accept(first), publish=[message("b")])])
        elif by == "release":
            await broker.settle([Release(second)])
        elif by == "chord":  # one by one, not as columns
            result = StoredResult("other", b"{}", True)
            await broker.finish([Completion(settlement=Accept(first), publish=[message("b")], others=[result])])
        else:
            await broker.settle([Accept(first)])
            await broker.freed([seats])
        async with asyncio.timeout(60):
            assert ids(await waiting) == ["b"]
        await broker.close()

    asyncio.run(main())


def _sleeps(server: PostgresServer) -> bool:
    rows = server.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
    )
    return bool(rows[0][0])


def test_a_restart_is_survived(make_postgres: Callable[..., PostgresServer]) -> None:
    server = make_postgres(durable=True)

    async def main() -> None:
        url = server.url()
        broker, publisher = postgres.broker(url, _options()), postgres.publisher(url, _options())
        await broker.open()
        await asyncio.to_thread(publisher.publish, [message("a"), message("b")], timeout=30.0)
        (held,) = await broker.claim(["q"], limit=1, wait=0.0)
        for end in (server.kill, server.stop):
            await asyncio.to_thread(end)
            with pytest.raises(OperationalError):
                await broker.claim(["q"], limit=1, wait=1.0)
            with pytest.raises(OperationalError):
                await asyncio.to_thread(publisher.publish, [message("lost")], timeout=0.5)
            await asyncio.to_thread(server.start)
            assert list(await broker.extend([held])) == [], "a lease survives a restart"
            await asyncio.to_thread(publisher.publish, [message("more")], timeout=30.0)
        assert list(await broker.settle([Accept(held)])) == []
        assert ids(await broker.claim(["q"], limit=9, wait=0.0)) == ["b", "more", "more"]
        publisher.close()
        await broker.close()

    asyncio.run(main())
    server.close()


def test_a_deadlock_is_tried_again(postgres_server: PostgresServer, postgres_url: str) -> None:
    schema = address(postgres_url, _options()).schema

    async def main() -> None:
        broker = postgres.broker(postgres_url, _options())
        await broker.open()
        await broker.publish([message("a"), message("b")])
        held = sorted(await broker.claim(["q"], limit=2, wait=0.0), key=lambda each: each.token)
        lock = f"SELECT FROM {schema}.lease WHERE id = %s FOR UPDATE".encode()
        first, second = sorted(int(each.token.rpartition(":")[2]) for each in held)

        async def met() -> bool:
            """Whether it was the broker's session that was ended."""
            with postgres_server.connect() as other:
                # The broker's looks after one second, and finds the deadlock first: if it is there by then.
                other.execute("SET deadlock_timeout = '3s'")
                other.execute("BEGIN")
                other.execute(lock, (second,))
                extending = asyncio.ensure_future(broker.extend(held))
                await eventually(lambda: postgres_server.execute(_WAIT) == [(1,)], 60, "extend waits for the other")
                try:
                    await asyncio.to_thread(other.execute, lock, (first,))
                except psycopg.errors.DeadlockDetected:
                    await extending
                    return False
                assert not extending.done()
                other.execute("ROLLBACK")
                assert list(await extending) == []
                return True

        assert await met() or await met() or await met()
        await broker.close()

    asyncio.run(main())


#: How many statements wait for a lock.
_WAIT = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@asynccontextmanager
async def _locked(server: PostgresServer, url: str) -> AsyncIterator[tuple[PostgresBroker, Callable[[], Any]]]:
    """A broker with one message, which nobody gets at until the second is called."""
    broker = postgres.broker(url, _options())
    await broker.open()
    await broker.publish([message("a")])
    with server.connect() as other:
        other.execute("BEGIN")
        other.execute(f"LOCK TABLE {address(url, _options()).schema}.ready IN ACCESS EXCLUSIVE MODE".encode())
        yield broker, lambda: other.execute("ROLLBACK")


def test_a_claim_that_comes_to_it_after_it_was_given_up(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes then is delivered at once, not when its lease ends."""

    async def main() -> None:
        async with _locked(postgres_server, postgres_url) as (broker, unlock):
            monkeypatch.setattr(Session.call, "__defaults__", (0.2,))
            for _ in range(2):
                with pytest.raises(OperationalError, match="no answer"):
                    await broker.claim(["q"], limit=5, wait=0.0)
            unlock()
        monkeypatch.undo()
        (held,) = await broker.claim(["q"], limit=5, wait=20.0)
        assert list(await broker.settle([Accept(held)])) == []
        await broker.close()

    asyncio.run(main())


def test_what_a_cancelled_claim_takes_is_given_back_at_the_close(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    schema = address(postgres_url, _options()).schema

    async def main() -> None:
        async with _locked(postgres_server, postgres_url) as (broker, unlock):
            claiming = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=0.0))
            await eventually(lambda: postgres_server.execute(_WAIT) == [(1,)], 60, "the claim waits")
            claiming.cancel()
            await asyncio.wait({claiming})
            closing = asyncio.ensure_future(broker.close())
            await asyncio.sleep(0)
            unlock()
            await closing
        counts = f"SELECT (SELECT count(*) FROM {schema}.ready), (SELECT count(*) FROM {schema}.lease)"
        assert postgres_server.execute(counts) == [(1, 0)]

    asyncio.run(main())


def test_tidying_leaves_a_seat_that_just_goes_to_another(postgres_server: PostgresServer, postgres_url: str) -> None:
    schema = address(postgres_url, _options()).schema

    async def main() -> None:
        broker = postgres.broker(postgres_url, _options())
        await broker.open()
        with postgres_server.connect() as one, postgres_server.connect() as other:
            one.execute(f"INSERT INTO {schema}.seat VALUES ('k', 1, 111, 0), ('gone', 2, 111, 0)".encode())
            one.execute("BEGIN")
            one.execute(f"INSERT INTO {schema}.lease VALUES (222, 1, 'o', 9e9)".encode())
            one.execute(f"UPDATE {schema}.seat SET claim = 222 WHERE key = 'k'".encode())
            tidying = asyncio.ensure_future(asyncio.to_thread(other.execute, f"SELECT {schema}.tidy(60)".encode()))
            await eventually(lambda: postgres_server.execute(_WAIT) == [(1,)], 60, "it waits for the row")
            one.execute("COMMIT")
            await tidying
        assert postgres_server.execute(f"SELECT key, claim FROM {schema}.seat") == [("k", 222)]
        await broker.close()

    asyncio.run(main())


def test_a_session_that_the_server_holds_for_idle_is_replaced(
    make_postgres: Callable[..., PostgresServer],
) -> None:
    server = make_postgres()
    postgres.migrate_schema(server.url(), _options())
    server.execute("CREATE ROLE idler SUPERUSER LOGIN")
    server.execute("ALTER ROLE idler SET idle_session_timeout = '500ms'")
    publisher = postgres.publisher(server.url(user="idler"), _options())
    publisher.publish([message("a")], timeout=30.0)
    server.execute("ALTER ROLE idler RESET idle_session_timeout")  # for the sessions that begin from now on
    wait_until(lambda: _sessions(server) == 0, 60, "the server ends the idle session")
    publisher.publish([message("b")], timeout=30.0)
    assert publisher.depth(["q"], timeout=30.0)["q"].ready == 2
    publisher.close()
    server.close()


def _sessions(server: PostgresServer) -> int:
    rows = server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'celeriac' AND backend_type = 'client backend'"
    )
    return int(rows[0][0])


def test_without_listen_nothing_of_a_session_is_used(postgres_server: PostgresServer, postgres_url: str) -> None:
    """As behind PgBouncer in transaction mode: no LISTEN, no lock of a session, no prepared statement."""
    options = _options(listen=False)

    async def main() -> None:
        broker, store = postgres.broker(postgres_url, options), postgres.store(postgres_url, options)
        publisher, reader = postgres.publisher(postgres_url, options), postgres.reader(postgres_url, options)
        await broker.open()
        await store.open()
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=5, wait=60.0))
        await asyncio.sleep(0.2)
        for number in range(8):  # more than a driver lets pass before it prepares
            await asyncio.to_thread(publisher.publish, [message(f"id-{number}")], timeout=30.0)
        taken = [*await waiting]
        while len(taken) < 8:
            taken += await broker.claim(["q"], limit=8, wait=60.0)
        seeking = asyncio.ensure_future(asyncio.to_thread(reader.wait, ["r"], timeout=60))
        await store.put([StoredResult("r", b"{}", True)])
        assert await seeking == "r"
        held = postgres_server.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held == [(0,)]
        for session in (broker._session, store._session):
            line = session._line
            assert line is not None
            assert await line.run(bare("SELECT name FROM pg_prepared_statements"), ()) == []
            assert await line.run(bare("SELECT pg_listening_channels()"), ()) == []
        publisher.close()
        reader.close()
        await broker.close()
        await store.close()

    asyncio.run(main())


def test_the_next_address_is_tried(postgres_server: PostgresServer, postgres_url: str) -> None:
    gone = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres?schema={address(postgres_url, _options()).schema}"
    options = AdapterOptions(owner="test", alternates=[gone, postgres_url], connect_timeout=3.0)
    publisher = postgres.publisher(gone, options)
    publisher.publish([message("a")], timeout=3.0)
    publisher.close()

    async def main() -> None:
        broker = postgres.broker(gone, options)
        await broker.open()
        assert ids(await broker.claim(["q"], limit=1, wait=0.0)) == ["a"]
        await broker.close()

    asyncio.run(main())


def test_an_idle_broker_asks_little(postgres_server: PostgresServer, postgres_url: str) -> None:
    async def main() -> int:
        broker = postgres.broker(postgres_url, _options())
        await broker.open()
        await broker.claim(["q"], limit=1, wait=0.2)
        calls = 0
        real = broker._session.call

        async def counted(name: str, args: object, seconds: float = 8.0) -> object:
            nonlocal calls
            calls += 1
            return await real(name, args, seconds)  # type: ignore[arg-type]

        broker._session.call = counted  # type: ignore[method-assign,assignment]
        await broker.claim(["q"], limit=1, wait=4.2)
        await broker.close()
        return calls

    # A look, listening, a look that would be told, then one every two seconds.
    assert asyncio.run(main()) <= 5


def test_passwords_are_never_told(postgres_server: PostgresServer) -> None:
    secret = "s3cr3t-w0rd"
    url = f"postgresql://nobody:{secret}@127.0.0.1:{postgres_server.start().port}/nowhere"
    publisher = postgres.publisher(url, _options())
    with pytest.raises(OperationalError) as caught:
        publisher.publish([message("a")], timeout=3.0)
    assert secret not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImproperlyConfigured) as wrong:
        postgres.publisher(f"postgresql://u:{secret}@h/d?no_such_option=1", _options())
    assert secret not in str(wrong.value)


def test_a_publisher_serves_a_child_beside_its_parent(postgres_server: PostgresServer, postgres_url: str) -> None:
    """A fork neither ends the parent's session nor shares it."""
    publisher = postgres.publisher(postgres_url, _options())
    wait_until(lambda: _sessions(postgres_server) == 0, 60, "those of other tests have ended")
    publisher.publish([message("a")], timeout=30.0)
    assert _sessions(postgres_server) == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            publisher.publish([message("b")], timeout=30.0)
            publisher.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    wait_until(lambda: _sessions(postgres_server) == 1, 60, "the child's session has ended, the parent's has not")
    publisher.publish([message("c")], timeout=30.0)
    assert publisher.depth(["q"], timeout=30.0)["q"].ready == 3
    publisher.close()


def test_a_host_whose_first_address_is_silent(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = postgres.publisher(postgres_url, _options())
    publisher.depth(["lame"], timeout=10.0)  # makes the schema
    publisher.close()
    with lame_host(postgres_server.port, monkeypatch) as host:
        reaches(postgres, postgres_url.replace("127.0.0.1", host))


class Cut:
    """Loses the reply to the next call of a name: the server has carried it out."""

    def __init__(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.next = ""
        for kind in (line.Line, blocking.Line):
            self._around(proxy, kind, monkeypatch)

    def _around(self, proxy: Proxy, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        run = kind.run

        def cut(itself: Any, statement: Any, *args: Any) -> Any:
            if self.next and self.next in (statement.name.decode(), statement.text.decode()):
                self.next = ""
                proxy.cut_reply()
            return run(itself, statement, *args)

        monkeypatch.setattr(kind, "run", cut)


def test_a_connection_that_breaks_behind_a_commit(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is known not to be known, by all who ask; nobody takes it for not written."""

    async def main(url: str, cut: Cut) -> None:
        broker, publisher = postgres.broker(url, _options()), postgres.publisher(url, _options())
        await broker.open()

        async def lost(name: str, call: Any) -> None:
            cut.next = name
            with pytest.raises(OperationalError) as error:
                await call
            assert error.value.uncertain

        await lost("celeriac_publish", asyncio.to_thread(publisher.publish, [message("a")], timeout=5.0))
        once = {"key": message("b")}
        await lost("COMMIT", asyncio.to_thread(publisher.publish_once, once, expires=60.0, timeout=5.0))
        assert publisher.publish_once(once, expires=60.0, timeout=5.0) == [], "asked again it knows"
        await lost("celeriac_claim", broker.claim(["q"], limit=5, wait=0.0))
        first, second = await broker.claim(["q"], limit=5, wait=5.0)
        assert ids([first, second]) == ["a", "b"], "they are not held by nobody"

        end = Completion(settlement=Accept(first), publish=[message("next")], result=StoredResult("a", b"{}", True))
        await lost("celeriac_finish", broker.finish([end]))
        assert list(await broker.finish([end])) == [Verdict.FENCED], "an earlier try has finished it"
        found = await broker.claim(["q"], limit=5, wait=0.0)
        assert ids(found) == ["next"], "once"
        await broker.settle([Accept(each) for each in found])

        store = resolver.adapter("memory://beside").store("memory://beside", _options())  # type: ignore[attr-defined]
        await store.open()
        completer = Completer(broker, store, lambda over: None, rand=lambda: 0.0)
        cut.next = "celeriac_publish"
        await completer.write([Completion(settlement=Accept(second), publish=[message("step")])])
        copies = await broker.claim(["q"], limit=5, wait=0.0)
        assert [(each.message.id, each.redelivered) for each in copies] == [("step", False), ("step", True)]
        await broker.close()
        publisher.close()

    with Proxy("127.0.0.1", postgres_server.port) as proxy:
        url = postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        # Without prepared statements a call is one reply.
        asyncio.run(main(f"{url}{'&' if '?' in url else '?'}listen=false", Cut(proxy, monkeypatch)))
