"""A TCP proxy that misbehaves on request; it stands between Celeriac and a server in fault tests.

Runs an event loop in a thread of its own, so that blocking and asyncio clients can both be tested. Every method
returns when its effect is in force, and may be called from any thread but the proxy's. Knows nothing of Redis:

    with Proxy(HOST, server.port) as proxy:
        url = server.url(port=proxy.port)
        proxy.cut()
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from tests.servers.base import HOST, free_port

__all__ = ["Proxy"]

CHUNK = 65536
LINGER_NONE = struct.pack("ii", 1, 0)  # close() sends RST instead of FIN

T = TypeVar("T")
Chunk = tuple[float, bytes]  # due time, bytes; no bytes mean the end of the stream


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    writer.transport.abort()


def _open(writer: asyncio.StreamWriter) -> bool:
    connection: socket.socket | None = writer.get_extra_info("socket")
    return connection is not None and connection.fileno() >= 0


async def _closed(*writers: asyncio.StreamWriter) -> None:
    """Until these are closed: a reset is sent when the loop comes round to it."""
    while any(map(_open, writers)):  # noqa: ASYNC110 - the loop tells nobody
        await asyncio.sleep(0)


class _Link:
    """One client connection and its connection to the server."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.orphaned = False  # half open: the client talks to nobody and is not told

    async def run(self, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader) -> None:
        try:
            async with asyncio.TaskGroup() as pumps:
                self._pump(pumps, from_client, self.server, is_reply=False)
                self._pump(pumps, from_server, self.client, is_reply=True)
        except* OSError:
            pass  # one side was reset, so the other one is

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)

    def orphan(self) -> None:
        self.orphaned = True
        _reset(self.server)

    def _pump(
        self, pumps: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        chunks: asyncio.Queue[Chunk] = asyncio.Queue(maxsize=256)
        pumps.create_task(self._read(reader, chunks, is_reply=is_reply))
        pumps.create_task(self._write(writer, chunks, is_reply=is_reply))

    async def _read(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[Chunk], *, is_reply: bool) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await self.proxy.flowing.wait()
            try:
                data = await reader.read(CHUNK)
            except OSError:
                if is_reply and self.orphaned:
                    return
                raise
            if is_reply and self.orphaned:
                return
            await chunks.put((now() + self.proxy.delay, data))
            if not data:
                return

    async def _write(self, writer: asyncio.StreamWriter, chunks: asyncio.Queue[Chunk], *, is_reply: bool) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due, data = await chunks.get()
            if due > now():
                await asyncio.sleep(due - now())
            await self.proxy.flowing.wait()
            if self.orphaned:
                if not data:
                    raise ConnectionResetError("the client gave up")
                continue
            if is_reply and data and self.proxy.swallow_reply:
                self.proxy.swallow_reply = False
                raise ConnectionResetError("the reply is lost")
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            if self.proxy.pace:
                await self._narrow(len(data), now)
            writer.write(data)
            try:
                await writer.drain()
            except OSError:
                if not self.orphaned:
                    raise

    async def _narrow(self, size: int, now: Callable[[], float]) -> None:
        """Wait until the bytes before these have gone through a line that all connections share."""
        proxy = self.proxy
        proxy.free_at = max(proxy.free_at, now()) + size / proxy.pace
        await asyncio.sleep(proxy.free_at - now())


class Proxy:
    """Forwards TCP connections to one server. `accepted` counts all connections so far, `open` those of now."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.upstream_port = port
        self.port = 0
        self.accepted = 0
        self.delay = 0.0
        self.pace = 0.0
        self.free_at = 0.0
        self.swallow_reply = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._closing = False
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # -- life

    def start(self) -> Self:
        ready = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._main, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        ready.wait(60)
        self._call(self._listen())
        return self

    def stop(self) -> None:
        if self._loop is None or self._thread is None:
            return
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def open(self) -> int:
        return len(self._links)

    # -- faults

    def cut(self) -> int:
        """Reset every connection, on both sides (RST). New ones are accepted. Returns how many were cut."""

        async def act() -> int:
            links = [link for link in self._links if not link.orphaned]
            for link in links:
                link.reset()
            await _closed(*(side for link in links for side in (link.client, link.server)))
            return len(links)

        return self._call(act())

    def cut_reply(self) -> None:
        """Lose the next reply: the server has carried out the command, the client sees a reset instead."""
        self._run(lambda: setattr(self, "swallow_reply", True))

    def blackhole(self, on: bool = True) -> None:
        """Hold back all bytes in both directions; they arrive late, when it ends, as TCP resends after a partition.

        Connecting still succeeds, since the kernel accepts.
        """
        self._run(self.flowing.clear if on else self.flowing.set)

    def half_open(self) -> int:
        """Let the server's side of every connection vanish without telling the client. New connections work.

        What the client sends is swallowed, and nothing ever comes back. Returns how many connections it hit.
        """

        async def act() -> int:
            links = [link for link in self._links if not link.orphaned]
            for link in links:
                link.orphan()
            await _closed(*(link.server for link in links))
            return len(links)

        return self._call(act())

    def latency(self, milliseconds: float) -> None:
        """Delay each direction by this much; bandwidth stays."""
        self._run(lambda: setattr(self, "delay", milliseconds / 1000))

    def bandwidth(self, bytes_a_second: float) -> None:
        """Let so many bytes a second through, of all connections and both directions together; 0: no limit."""
        self._run(lambda: setattr(self, "pace", bytes_a_second))

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections as a dead server does (ECONNREFUSED); the open ones stay."""
        self._call(self._unlisten() if on else self._listen())

    # -- inside the proxy's thread

    def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(ready.set)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        if self._listener is None:
            # Not one of the ports for outgoing connections: else one of these takes it while it refuses.
            self.port = self.port or free_port()
            self._listener = await asyncio.start_server(self._serve, HOST, self.port, backlog=512)

    async def _unlisten(self) -> None:
        if self._listener is not None:
            # First nobody is accepted any more, then those are met who just were: asyncio forgets them, sockets and
            # all, when their listener is gone.
            for each in self._listener.sockets:
                asyncio.get_running_loop().remove_reader(each.fileno())
            for _ in range(5):
                await asyncio.sleep(0)
            self._listener.close()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._closing:
            _reset(writer)
            return
        try:
            from_server, to_server = await asyncio.open_connection(self.host, self.upstream_port)
        except OSError:
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        link = _Link(self, writer, to_server)
        self._links.add(link)
        try:
            await link.run(reader, from_server)
        finally:
            link.reset()
            self._links.discard(link)

    async def _close(self) -> None:
        self._closing = True
        await self._unlisten()
        self.flowing.set()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for link in self._links:
                link.reset()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    # -- from other threads

    def _run(self, act: Callable[[], T]) -> T:
        async def call() -> T:
            return act()

        return self._call(call())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "the proxy is not running"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
