"""Connections of children that their agent keeps open beyond their deaths, until it has said who was to blame.

A broker that gives back by itself (RabbitMQ) does so as soon as a dead child's connection is closed, which is before
anybody has told what the child died of: the next worker may run a task that kills its process without knowing. But a
connection is closed when its last descriptor is. So each child hands the agent a descriptor of its own, over a Unix
socket of the node, and the agent closes it when the verdict is written (``burial.py``). A child that dies while its
agent is being replaced has its verdict waited for (``verdicts.py``), as one of other nodes of before.

Nothing is written to or read from such a connection here, and no task costs anything.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from celeriac.worker.peer import is_of_this_node

__all__ = ["Lifeline", "Lifelines"]

#: Seconds that a child waits for its agent to have a descriptor.
_PATIENCE = 5.0
#: Seconds after a child's death in which its notice comes from the supervisor; one that held nothing has none.
_UNTOLD = 30.0
_MOST = 256
_THANKS = b"\1"


class Lifelines:
    """Of one agent."""

    def __init__(self, name: str) -> None:
        self._name = name
        #: Descriptors by their children, and over what they came.
        self._kept: dict[str, tuple[int, socket.socket]] = {}

    async def serve(self) -> None:
        """Take what children hand over, until cancelled."""
        loop, listening = asyncio.get_running_loop(), _unix_socket()
        try:
            listening.bind(_address(self._name))
            listening.listen(socket.SOMAXCONN)
            async with asyncio.TaskGroup() as group:
                while True:
                    child, _ = await loop.sock_accept(listening)
                    group.create_task(self._attend(child))
        finally:
            listening.close()
            for owner in tuple(self._kept):
                self.cut(owner)

    async def _attend(self, child: socket.socket) -> None:
        """One child, for as long as it lives: a descriptor for each of its connections, one after the other."""
        owner = ""
        with child:
            child.setblocking(False)
            if not is_of_this_node(child):
                return
            try:
                while True:
                    await _readable(child)
                    told, descriptors, _, _ = socket.recv_fds(child, _MOST, 1, socket.MSG_CMSG_CLOEXEC)
                    if not told:
                        break
                    owner = told.decode("utf-8", "replace")
                    self.cut(owner)
                    if descriptors:
                        self._kept[owner] = descriptors[0], child
                    child.send(_THANKS)
            except OSError:
                pass  # it died meanwhile
        if self._has(owner, child):
            await asyncio.sleep(_UNTOLD)
            if self._has(owner, child):
                self.cut(owner)

    def _has(self, owner: str, child: socket.socket) -> bool:
        """What is kept came over this; the child may have handed over another since."""
        return owner in self._kept and self._kept[owner][1] is child

    def cut(self, owner: str) -> None:
        """Let go of a child's connection: if it is dead, what it held goes back now. Idempotent."""
        descriptor, _ = self._kept.pop(owner, (-1, None))
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def kept(self) -> int:
        """How many there are."""
        return len(self._kept)


class Lifeline:
    """A child's side. Whatever goes wrong, the child does without."""

    def __init__(self, name: str, owner: str) -> None:
        self._name = name
        self._owner = owner
        self._descriptor: Callable[[], int] = lambda: -1
        self._agent: socket.socket | None = None
        self._turn = asyncio.Lock()

    async def hold(self, descriptor: Callable[[], int]) -> None:
        """Hand over the descriptor of a new connection, before anything is taken over it; below 0: it is closed."""
        self._descriptor = descriptor
        async with self._turn:
            await self._hand_over()

    async def renew(self) -> None:
        """The agent is a new one."""
        async with self._turn:
            self.close()
            await self._hand_over()

    async def _hand_over(self) -> None:
        for _ in range(2):  # the second time to an agent that has taken the place of the one that was known
            number = self._descriptor()
            if number < 0:
                return
            again = self._agent is not None
            try:
                async with asyncio.timeout(_PATIENCE):
                    agent = self._agent = self._agent or self._connected()
                    socket.send_fds(agent, [self._owner.encode()], [number])
                    await _readable(agent)
                    if agent.recv(1) == _THANKS:
                        return
            except (OSError, TimeoutError):
                pass
            self.close()
            if not again:
                return

    def _connected(self) -> socket.socket:
        agent = _unix_socket()
        try:
            agent.connect(_address(self._name))
            if not is_of_this_node(agent):
                raise PermissionError(f"somebody else listens as {self._name}")
        except BaseException:
            agent.close()
            raise
        return agent

    def close(self) -> None:
        """As a death does: the agent lets go of what it has, soon."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()


def _address(name: str) -> str:
    return f"\0{name}-lifelines"


def _unix_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(sock)


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
