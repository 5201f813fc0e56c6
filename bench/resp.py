"""A blocking Redis connection of its own, so that the measurement uses the client of neither peer."""

import socket
from collections.abc import Iterable
from typing import Any

import hiredis

Word = str | bytes | int | float


class Redis:
    """`call` sends one command, `many` a pipeline. An error reply is raised."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def call(self, *words: Word) -> Any:
        return self.many([words])[0]

    def many(self, commands: Iterable[tuple[Word, ...]]) -> list[Any]:
        packed = [hiredis.pack_command(words) for words in commands]  # type: ignore[arg-type]
        self._socket.sendall(b"".join(packed))
        return [self._reply() for _ in packed]

    def close(self) -> None:
        self._socket.close()

    def _reply(self) -> Any:
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(1 << 16)
            if not received:
                raise ConnectionError("redis-server closed the connection")
            self._reader.feed(received)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply
