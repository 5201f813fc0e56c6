"""The proxy does what fault tests rely on, shown with a plain echo server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, wait_until


class Echo:
    """Sends back what it gets; counts connections and their ends."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        self.received = b""
        self.ended = 0
        self.threads: list[threading.Thread] = []

    def stop(self) -> None:
        if self.listener.fileno() >= 0:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.echo, args=(connection,), daemon=True))
            self.threads[-1].start()

    def echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data)
            except OSError:
                pass
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(5)
    for served in server.threads:
        served.join(5)


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(HOST, echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), 5) as connection:
        assert ask(connection, b"hello") == b"hello"
        yield connection


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(65536)


def test_bytes_pass_and_connections_are_counted(proxy: Proxy, client: socket.socket) -> None:
    assert (proxy.accepted, proxy.open) == (1, 1)
    with socket.create_connection((HOST, proxy.port), 5) as second:
        assert ask(second, b"again") == b"again"
        assert (proxy.accepted, proxy.open) == (2, 2)
    wait_until(lambda: proxy.open == 1, 60, "the closed connection is forgotten")


def test_the_end_of_a_stream_passes_in_one_direction(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b"last"
    assert client.recv(100) == b""
    wait_until(lambda: echo.ended == 1, 60, "the server sees the end")


def test_cut_resets_both_sides_and_new_connections_work(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_until(lambda: echo.ended == 1, 60, "the server sees the end")
    with socket.create_connection((HOST, proxy.port), 5) as fresh:
        assert ask(fresh, b"anew") == b"anew"


def test_cut_reply_lets_the_command_through(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.cut_reply()
    client.sendall(b"command")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert echo.received == b"hellocommand"


def test_blackhole_holds_bytes_back(proxy: Proxy, client: socket.socket) -> None:
    proxy.blackhole()
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        ask(client, b"held")
    client.settimeout(60)
    proxy.blackhole(False)
    assert client.recv(100) == b"held"


def test_half_open_tells_the_client_nothing(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    assert proxy.half_open() == 1
    wait_until(lambda: echo.ended == 1, 60, "the server's side is gone")
    client.settimeout(0.05)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ask(client, b"swallowed")
    with socket.create_connection((HOST, proxy.port), 5) as fresh:
        assert ask(fresh, b"anew") == b"anew"
    assert b"swallowed" not in echo.received
    client.close()
    wait_until(lambda: proxy.open == 0, 60, "the orphan is forgotten")


def test_latency_delays_each_direction_and_keeps_order(proxy: Proxy, client: socket.socket) -> None:
    proxy.latency(30)
    started = time.monotonic()
    for number in range(5):
        client.sendall(b"%d" % number)
    received = b""
    while len(received) < 5:
        received += client.recv(100)
    assert received == b"01234"
    assert 0.06 <= time.monotonic() - started < 60.0
    proxy.latency(0)
    assert ask(client, b"fast") == b"fast"


def test_refuse_is_a_dead_server_on_the_same_port(proxy: Proxy, client: socket.socket) -> None:
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 5)
    assert ask(client, b"still open") == b"still open"
    proxy.refuse(False)
    with socket.create_connection((HOST, port), 5) as fresh:
        assert ask(fresh, b"back") == b"back"


def test_a_dead_server_behind_it_resets(proxy: Proxy, echo: Echo) -> None:
    def use() -> None:  # the reset may be as fast as connect()
        with socket.create_connection((HOST, proxy.port), 5) as connection:
            connection.recv(1)

    echo.stop()
    with pytest.raises(ConnectionResetError):
        use()


def test_a_large_reply_passes_whole(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_server.command("SET", "big", b"x" * 20_000_000)
    with socket.create_connection((HOST, redis_proxy.port), 5) as connection:
        connection.sendall(b"GET big\r\n")
        received = 0
        while received < 20_000_000 + len(b"$20000000\r\n\r\n"):
            received += len(connection.recv(1 << 20))
