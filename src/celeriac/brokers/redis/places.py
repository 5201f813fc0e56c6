"""Where the server is now: the one seam between an address and a connection, for both kinds of connection.

A search tells its driver whom to visit and what to ask there; the connection of its last visit is the one that was
sought. It opens nothing itself. One address is visited without a question; of several, the first that is no replica is
taken; sentinels are asked, the latest failover that one of them knows counts, and what they say is checked.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import hiredis
from msgspec import Struct
from msgspec.structs import replace

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.sockets import Word

__all__ = ["CHECK_INTERVAL", "Places", "Search", "Told", "Visit", "question", "told"]

#: Seconds between two checks.
CHECK_INTERVAL = 1.0

_ROLE: tuple[Word, ...] = ("ROLE",)


class Visit(Struct, frozen=True):
    """Connect to ``address`` and ask ``words``, if there are any."""

    address: Address
    words: tuple[Word, ...] = ()
    #: Whether the connection may be the one that is sought.
    stays: bool = True


#: Is sent the reply (an error reply too, as a value), is thrown the error of a failed connection. Raises ``OSError``
#: when nobody is there, or the error itself where there is one place only.
Search = Generator[Visit, Any, None]


#: Epoch, host and port.
Told = tuple[int, str, int]


class Places:
    """The places of one address. Threads may search at once: what they remember is replaced as a whole."""

    def __init__(self, address: Address) -> None:
        self._address = address
        plain = replace(address, others=(), sentinels=())
        patience = address.connect_timeout / (1 + len(address.others))
        #: What was right last stands in front.
        self._servers: tuple[Address, ...] = (plain,)
        if address.others:
            self._servers = tuple(replace(each, connect_timeout=patience) for each in (plain, *address.others))
        self._sentinels = address.sentinels
        #: That of the failover that made the server the master, as sentinels count.
        self._epoch = -1
        #: The latest that any has told of: then all are asked until one tells the same.
        self._known = -1
        self._turn = 0
        #: Whether ``check`` has to be called from time to time.
        self.move = bool(self._sentinels)

    def search(self) -> Search:
        """Look for the server."""
        if self._sentinels:
            return self._ask_sentinels()
        return self._try_all() if len(self._servers) > 1 else self._only()

    def _only(self) -> Search:
        yield Visit(self._servers[0])

    def _try_all(self) -> Search:
        found_wrong: list[str] = []
        for server in self._servers:
            try:
                problem = _problem((yield Visit(server, _ROLE)))
            except (OSError, hiredis.ReplyError) as error:
                problem = _words(error)
            if not problem:
                self._servers = (server, *(each for each in self._servers if each is not server))
                return
            found_wrong.append(f"{server.place}: {problem}")
        raise ConnectionError("; ".join(found_wrong))

    def _ask_sentinels(self) -> Search:
        found_wrong: list[str] = []
        facts: list[Told] = []
        silent: list[Address] = []
        for sentinel in self._sentinels:
            try:
                answer = yield self._question(sentinel)
            except (OSError, hiredis.ReplyError) as error:
                answer = error
            fact = told(answer)
            if fact is None:
                silent.append(sentinel)
                found_wrong.append(f"sentinel {sentinel.place}: {self._complaint(answer)}")
                continue
            facts.append(fact)
            if fact[0] >= self._known and facts.count(fact) > len(self._sentinels) // 2:
                break
        if silent:
            self._sentinels = (*(each for each in self._sentinels if each not in silent), *silent)
        if facts:
            # One that has missed a failover would send us to the old master, which may still take writes.
            epoch, host, port = max(facts)
            server = replace(self._servers[0], host=host, port=port)
            try:
                problem = _problem((yield Visit(server, _ROLE)))
            except (OSError, hiredis.ReplyError) as error:
                problem = _words(error)
            if not problem:
                self._epoch = epoch
                self._known = max(self._known, epoch)
                return
            found_wrong.insert(0, f"{server.place}: {problem}")
        raise ConnectionError("; ".join(found_wrong))

    def check(self) -> Generator[Visit, Any, bool]:
        """Ask one sentinel, each in its turn, whether there was a failover since the last search: the old master goes
        on taking writes for ten seconds, and loses them. Errors of connecting are thrown in, and mean nothing."""
        self._turn += 1
        try:
            fact = told((yield self._question(self._sentinels[self._turn % len(self._sentinels)])))
        except (OSError, hiredis.ReplyError):
            return False
        return fact is not None and self.hears(fact)

    def hears(self, fact: Told) -> bool:
        """A sentinel has said so: whether there was a failover since the last search."""
        if fact[0] <= self._epoch:
            return False
        self._known = max(self._known, fact[0])
        return True

    def _question(self, sentinel: Address) -> Visit:
        return Visit(sentinel, question(self._address.master), stays=False)

    def _complaint(self, answer: Any) -> str:
        words = _words(answer)
        return f"knows no master {self._address.master!r}" if "No such master" in words else words


def question(master: str) -> tuple[Word, ...]:
    """What a sentinel is asked."""
    return ("SENTINEL", "MASTER", master)


def told(answer: Any) -> Told | None:
    """Epoch and place of the master in the answer of a sentinel."""
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2], strict=False))
    try:
        return int(answer[b"config-epoch"]), answer[b"ip"].decode(), int(answer[b"port"])
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _problem(role: Any) -> str:
    """What is wrong with a server that answered ROLE so; nothing with one that may not be asked."""
    if isinstance(role, hiredis.ReplyError):
        return "" if str(role).startswith(("NOPERM", "ERR unknown")) else str(role)
    kind = role[0] if isinstance(role, list) and role else b""
    return "" if kind == b"master" else f"is no master ({kind.decode(errors='replace') or 'unknown role'})"


def _words(error: object) -> str:
    return str(error) or type(error).__name__
