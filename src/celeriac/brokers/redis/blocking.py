"""Blocking connections to Redis for producers: plain sockets with hiredis, pooled, one deadline for everything.

Safe in threads (a connection belongs to one caller at a time), after forks (a child forgets its parent's connections)
and in greenlets (plain sockets with timeouts, which gevent replaces). Loads no asyncio. A stale pooled connection is
noticed before anything is sent and replaced; once a command has left, only one that may run twice is repeated.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from celeriac.brokers.dialing import dial
from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.errors import lost, refused, too_few
from celeriac.brokers.redis.places import CHECK_INTERVAL, Places, Visit
from celeriac.brokers.redis.scripts import Script
from celeriac.brokers.redis.sockets import Word, pack, tune, version_of
from celeriac.brokers.turns import Turns
from celeriac.conf.tls import server_name, tls_context

__all__ = ["Connection", "Pool", "found"]

_ALREADY = object()
#: Most replies are short; reserving much for them costs 2 us.
_FIRST, _CHUNK = 4096, 65536
#: How much longer than asked a call may wait, in seconds.
_TOLERANCE = 0.05
#: A sentinel that does not answer costs its timeout: so many checks are left out then.
_SILENT = 10
monotonic = time.monotonic


class Unsent(ConnectionError):
    """The connection broke before the whole request had left: nothing was executed."""


class Connection:
    """One socket. Not thread-safe; raises ``OSError`` and ``hiredis.ReplyError``."""

    def __init__(self, address: Address, deadline: float) -> None:
        self._address = address
        self._reader = hiredis.Reader(notEnoughData=_ALREADY)
        self._socket = _connected(address, deadline)
        self._set = -1.0
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        #: Not empty when the idle connection was closed by the server, or says something nobody asked for.
        self.idle_poll = poll.poll
        self.version = (6, 2)
        self.resp3 = True
        try:
            self._greet(deadline)
        except BaseException:
            self.close()
            raise

    def _greet(self, deadline: float) -> None:
        address = self._address
        account: tuple[Word, ...] = ()
        if address.username or address.password:
            account = ("AUTH", address.username or "default", address.password)
        commands = [pack(("HELLO", 3, *account))]
        if address.db:
            commands.append(pack(("SELECT", address.db)))
        if address.client_name:
            commands.append(pack(("CLIENT", "SETNAME", address.client_name)))
        self.send(b"".join(commands), deadline)
        replies = [self.read(deadline) for _ in commands]
        facts = replies[0]
        if isinstance(facts, hiredis.ReplyError) and str(facts).startswith(("ERR unknown", "NOPROTO", "NOPERM")):
            self.resp3 = False
            if account:
                self.ask(account if address.username else ("AUTH", address.password), deadline)
            if address.db:
                self.ask(("SELECT", address.db), deadline)
        elif isinstance(facts, hiredis.ReplyError):
            raise facts
        else:
            self.version = version_of(facts)
            if address.db and isinstance(replies[1], hiredis.ReplyError):
                raise replies[1]

    def send(self, packed: bytes, deadline: float) -> None:
        """Send whole requests. Raises ``Unsent`` when they did not leave in full."""
        try:
            self._limit(deadline)
            self._socket.sendall(packed)
        except TimeoutError:
            raise
        except OSError as error:
            raise Unsent(str(error)) from error

    def read(self, deadline: float) -> Any:
        """The next reply or push; an error reply is returned, not raised."""
        reader = self._reader
        try:
            reply = reader.gets()
            size = _FIRST
            while reply is _ALREADY:
                self._limit(deadline)
                data = self._socket.recv(size)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                reader.feed(data)
                reply = reader.gets()
                size = _CHUNK
        except hiredis.ProtocolError as error:
            raise ConnectionResetError(f"this is no Redis ({error})") from error
        return reply

    def _limit(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        # Most callers give the same time again and again.
        if not -_TOLERANCE < self._set - left < _TOLERANCE:
            self._socket.settimeout(left)
            self._set = left

    def ask(self, words: tuple[Word, ...], deadline: float) -> Any:
        """One command, one reply; an error reply is raised."""
        self.send(pack(words), deadline)
        reply = self.read(deadline)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word], deadline: float) -> Any:
        """Run a script."""
        digest, text = script.source(self.version)
        try:
            return self.ask(("EVALSHA", digest, len(keys), *keys, *args), deadline)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return self.ask(("EVAL", text, len(keys), *keys, *args), deadline)

    def run_each(
        self, script: Script, calls: Sequence[tuple[Sequence[Word], Sequence[Word]]], deadline: float
    ) -> list[Any]:
        """Run a script for each of ``calls``; error replies are returned, unless there is nothing else."""
        digest, text = script.source(self.version)
        packed = b"".join([pack(("EVALSHA", digest, len(keys), *keys, *args)) for keys, args in calls])
        try:
            self.send(packed, deadline)
            replies = [self.read(deadline) for _ in calls]
            for place, (keys, args) in enumerate(calls):
                if isinstance(replies[place], hiredis.ReplyError) and str(replies[place]).startswith("NOSCRIPT"):
                    self.send(pack(("EVAL", text, len(keys), *keys, *args)), deadline)
                    replies[place] = self.read(deadline)
        except Unsent as error:
            raise ConnectionResetError(str(error)) from error  # some may have left
        if replies and all(isinstance(reply, hiredis.ReplyError) for reply in replies):
            raise replies[0]
        return replies

    def close(self) -> None:
        """Close without a word: a forked child must not end its parent's session."""
        try:
            self._socket.close()
        except OSError:
            pass

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self.close()


class Pool:
    """Connections to one address, at most ``limit`` at once (0: none is kept, none is refused)."""

    def __init__(self, address: Address, limit: int) -> None:
        self.address = address
        self._places = Places(address)
        self._limit = max(limit, 0)
        #: When sentinels are asked again.
        self._check_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Connection] = deque()
        #: Whoever uses a connection has one; nobody's signal takes it along.
        self._turns = Turns(self._limit)
        self._closed = False

    def _of_this_process(self) -> None:
        if self._pid != os.getpid():
            for connection in self._idle:
                connection.close()
            self._reset()

    def call(self, words: tuple[Word, ...], timeout: float, *, repeat: bool = False, durable: bool = False) -> Any:
        """Run one command within ``timeout`` seconds, connecting included. Raises ``OperationalError``.

        ``repeat``: it may run twice, so it is sent again when a connection breaks under it. ``durable``: what it writes
        counts when replicas have it, where ``wait_replicas`` asks for them.
        """
        return self._with(lambda connection, deadline: connection.ask(words, deadline), timeout, repeat, durable)

    def script(
        self,
        script: Script,
        keys: Sequence[Word],
        args: Sequence[Word],
        timeout: float,
        *,
        repeat: bool = False,
        durable: bool = False,
    ) -> Any:
        """Run a script; as ``call``."""
        return self._with(
            lambda connection, deadline: connection.run(script, keys, args, deadline), timeout, repeat, durable
        )

    def transaction(self, commands: Sequence[tuple[Word, ...]], timeout: float, *, durable: bool = False) -> Any:
        """Run commands in MULTI; all or none. Raises ``OperationalError``."""
        packed = b"".join(map(pack, (("MULTI",), *commands, ("EXEC",))))

        def run(connection: Connection, deadline: float) -> Any:
            connection.send(packed, deadline)
            replies = [connection.read(deadline) for _ in range(len(commands) + 2)]
            for reply in (*replies, *(replies[-1] if isinstance(replies[-1], list) else ())):
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
            return replies[-1]

        return self._with(run, timeout, False, durable)

    def scripts(
        self,
        script: Script,
        calls: Sequence[tuple[Sequence[Word], Sequence[Word]]],
        timeout: float,
        *,
        durable: bool = False,
    ) -> list[Any]:
        """Run a script for each of ``calls``, keys and arguments, sent together. Returns the replies, of which some may
        be errors; raises ``OperationalError`` when all are."""
        replies: list[Any] = self._with(
            lambda connection, deadline: connection.run_each(script, calls, deadline), timeout, False, durable
        )
        return replies

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back. A later call opens anew."""
        if self._pid == os.getpid():
            self._closed = True
            self._drop_idle()
            self._closed = False

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:  # other threads take and give meanwhile
                return

    # -- inside

    def _with(
        self, run: Callable[[Connection, float], Any], timeout: float, repeat: bool, durable: bool = False
    ) -> Any:
        deadline = monotonic() + timeout
        self._of_this_process()
        turns, me = self._turns, object()
        try:
            if not turns.take(me, deadline):
                busy = f"all {self._limit} connections are in use (broker_pool_limit)"
                raise lost(self.address, busy) from TimeoutError(busy)
            return self._run(run, deadline, timeout, repeat, durable)
        finally:
            try:
                turns.end(me)
            except BaseException:
                turns.end(me)  # somebody's signal came in between
                raise

    def _run(
        self, run: Callable[[Connection, float], Any], deadline: float, timeout: float, repeat: bool, durable: bool
    ) -> Any:
        connection: Connection | None = None
        while True:
            first, connection = connection is None, None
            try:
                connection = self._take(deadline)
                answer = run(connection, deadline)
                if durable and self.address.replicas:
                    self._wait_for_replicas(connection, deadline)
            except hiredis.ReplyError as error:
                self._after_refusal(connection, error)
                raise refused(self.address, error) from error
            except OSError as error:
                if connection is None:
                    raise lost(self.address, _worded(error, timeout)) from error
                connection.close()
                # Once more when it broke before the request had left, or under a request that may run twice.
                if not first or isinstance(error, TimeoutError) or not (repeat or isinstance(error, Unsent)):
                    failure = lost(self.address, _worded(error, timeout))
                    failure.uncertain = not isinstance(error, Unsent)
                    raise failure from error
            except BaseException:
                if connection is not None:
                    connection.close()  # interrupted: a reply may still be under way
                raise
            else:
                self._give(connection)
                return answer

    def _wait_for_replicas(self, connection: Connection, deadline: float) -> None:
        address = self.address
        try:
            there = connection.ask(("WAIT", address.replicas, address.replicas_within), deadline)
        except Unsent as error:
            raise ConnectionResetError(str(error)) from error  # what came before has left
        if there < address.replicas:
            raise too_few(address, there)

    def _after_refusal(self, connection: Connection | None, error: hiredis.ReplyError) -> None:
        if connection is None:
            return
        if str(error).startswith(("READONLY", "NOAUTH", "LOADING", "MASTERDOWN", "NOREPLICAS")):
            connection.close()  # the next one may reach another server
            self._drop_idle()
        else:
            self._give(connection)

    def _take(self, deadline: float) -> Connection:
        if self._places.move and monotonic() >= self._check_at:
            self._check_at = monotonic() + CHECK_INTERVAL  # other threads need not ask too
            moved = _moved(self._places, deadline)
            if moved:
                self._drop_idle()
            elif moved is None:
                self._check_at = monotonic() + _SILENT * CHECK_INTERVAL
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return found(self._places, deadline)
            if not connection.idle_poll(0):
                return connection
            connection.close()

    def _give(self, connection: Connection) -> None:
        """By one who still has his turn."""
        if len(self._idle) + self._turns.taken <= self._limit and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()


def found(places: Places, deadline: float) -> Connection:
    """A connection to the server, wherever that is now. Raises ``OSError`` and ``ReplyError``."""
    search = places.search()
    visit = next(search)
    while True:
        try:
            connection, reply = _visited(visit, deadline)
        except (OSError, hiredis.ReplyError) as error:
            visit = search.throw(error)
            continue
        try:
            visit = search.send(reply)
        except StopIteration:
            return connection
        except OSError:
            connection.close()
            raise
        connection.close()


def _moved(places: Places, deadline: float) -> bool | None:
    """Whether there was a failover, as far as one sentinel knows; None: it does not answer."""
    check = places.check()
    visit = next(check)
    try:
        connection, reply = _visited(visit, deadline)
        connection.close()
        check.send(reply)
    except StopIteration as end:
        return bool(end.value)
    except (OSError, hiredis.ReplyError):
        check.close()
    return None


def _visited(visit: Visit, deadline: float) -> tuple[Connection, Any]:
    """A connection, and the answer to the question of the visit; an error reply to it as a value."""
    limit = min(deadline, monotonic() + visit.address.connect_timeout)
    connection = Connection(visit.address, limit)
    try:
        if not visit.words:
            return connection, None
        connection.send(pack(visit.words), limit)
        return connection, connection.read(limit)
    except BaseException:
        connection.close()
        raise


def _connected(address: Address, deadline: float) -> socket.socket:
    if address.path:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            plain.settimeout(_remaining(deadline))
            plain.connect(address.path)
        except BaseException:
            plain.close()
            raise
        return plain
    tls = address.tls
    context = tls_context(tls, "Redis") if tls is not None else None
    _remaining(deadline)
    plain = dial(address.host, address.port, deadline)
    try:
        tune(plain, address)
        if tls is None or context is None:
            return plain
        plain.settimeout(_remaining(deadline))
        return context.wrap_socket(plain, server_hostname=server_name(tls, address.host))
    except BaseException:
        plain.close()
        raise


def _remaining(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _worded(error: OSError, timeout: float) -> BaseException | str:
    if isinstance(error, TimeoutError) and str(error) in {"timed out", ""}:
        return f"no answer within {timeout:g} s"
    return error
