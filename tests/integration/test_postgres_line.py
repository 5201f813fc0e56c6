"""A connection that is reset is heard of on any loop, also when something came just before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg import pq

from celeriac.brokers.postgres.line import Line
from celeriac.brokers.postgres.wire import bare

Run = Callable[[Coroutine[Any, Any, None]], None]
_LARGE = 4_000_000
_LINGER_NONE = struct.pack("ii", 1, 0)  # close() sends RST instead of FIN


class Wire:
    """What a `Line` needs of libpq's connection, over a socket: it never has a whole answer."""

    def __init__(self, peer: socket.socket, size: int) -> None:
        self._peer = peer
        self._size = size
        self.status = pq.ConnStatus.OK
        self.came = b""
        #: Bytes that are still to be sent.
        self.rest = b""

    @property
    def socket(self) -> int:
        return self._peer.fileno()

    def send_query_params(self, *args: object) -> None:
        self.rest += b"?" * self._size

    def flush(self) -> int:
        try:
            while self.rest:
                self.rest = self.rest[self._peer.send(self.rest) :]
        except BlockingIOError:
            return 1
        return 0

    def consume_input(self) -> None:
        try:
            data = self._peer.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            data, said = b"", str(error)
        else:
            said = "end of stream"
        if not data:
            self._peer.close()  # as libpq does
            self.status = pq.ConnStatus.BAD
            raise psycopg.OperationalError(said)
        self.came += data

    def is_busy(self) -> bool:
        return True

    def notifies(self) -> None:
        return None

    def finish(self) -> None:
        self._peer.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs on this loop."""
    loops = asyncio.new_event_loop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=loops) as runner:
        yield cast("Run", runner.run)


@contextlib.contextmanager
def _connected(size: int = 10) -> Iterator[tuple[Line, Wire, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    peer.setblocking(False)
    wire = Wire(peer, size)
    with server:
        line = Line(cast("Any", SimpleNamespace(pgconn=wire)), prepares=False, ring=lambda: None)
        try:
            yield line, wire, server
        finally:
            line.close()


def test_a_reset_behind_a_part_of_an_answer(run: Run) -> None:
    async def main() -> None:
        with _connected() as (line, wire, server):
            asked = asyncio.ensure_future(line.run(bare("SELECT 1"), ()))
            await asyncio.sleep(0)
            # Both before the loop looks again.
            server.sendall(b"half an answer")
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            server.close()
            with pytest.raises(psycopg.OperationalError, match="reset"):
                await asyncio.wait_for(asked, 10)
            assert line.broken
            assert wire.came in (b"half an answer", b"")

    run(main())


def test_a_reset_while_nobody_asks(run: Run) -> None:
    async def main() -> None:
        rung = asyncio.Event()
        with _connected() as (line, _, server):
            line._ring = rung.set
            server.sendall(b"a word")
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            server.close()
            await asyncio.wait_for(rung.wait(), 10)
            assert line.broken

    run(main())


def test_what_does_not_fit_is_sent_when_there_is_room(run: Run) -> None:
    async def main() -> None:
        with _connected(_LARGE) as (line, wire, server):
            asked = asyncio.ensure_future(line.run(bare("SELECT 1"), ()))
            await asyncio.sleep(0)
            assert wire.rest
            taken = await asyncio.to_thread(_take, server, _LARGE)
            assert taken == _LARGE
            assert not wire.rest
            line.give_up()
            with pytest.raises(psycopg.OperationalError, match="no answer"):
                await asked

    run(main())


def _take(server: socket.socket, size: int) -> int:
    server.settimeout(10)
    taken = 0
    while taken < size:
        taken += len(server.recv(1 << 20))
    return taken
