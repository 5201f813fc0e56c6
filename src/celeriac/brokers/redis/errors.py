"""Turns what sockets and Redis say into ``OperationalError``: the server, the cause, the next step, on one line."""

from __future__ import annotations

from celeriac.brokers.redis.address import Address
from celeriac.exceptions import OperationalError

__all__ = ["Elsewhere", "lost", "refused", "too_few"]

_NEXT_STEP = {
    "LOADING": "it is still loading its data: try again",
    "READONLY": "it is a replica: try again after the failover, or point the URL at the master",
    "MASTERDOWN": "it is a replica without its master: try again after the failover",
    "OOM": "its memory is full: let workers drain the queues, or raise maxmemory",
    "BUSY": "a script of somebody else blocks it: SCRIPT KILL ends that",
    "MISCONF": "it cannot save to disk: see its log",
    "NOAUTH": "it wants a password: put it into the URL",
    "WRONGPASS": "check user and password in the URL",
    "NOPERM": "grant the user what docs/reference/security.md lists",
    "WRONGTYPE": "another program uses this key: choose another queue name or a global_keyprefix",
    "CROSSSLOT": "it is a node of a cluster: write redis+cluster:// instead of redis://",
    "NOREPLICAS": "too few replicas are connected: see min-replicas-to-write",
}
#: Errors without a word of their own.
_SAID = {
    "cluster support disabled": "it is no cluster: write redis:// instead of redis+cluster://",
    "DB index is out of range": "name another database in the URL, or see databases in redis.conf",
}


class Elsewhere(OperationalError):
    """A node of a cluster that has not, or not wholly, what a command needs: nothing was executed."""

    def __init__(self, text: str, word: str, place: str) -> None:
        super().__init__(text)
        self.word = word
        #: Where it is, ``host:port``, when the node said so.
        self.place = place


_ELSEWHERE = {
    "MOVED": "it is a node of a cluster: write redis+cluster:// instead of redis://",
    "ASK": "the slot is on its way to another node: try again",
    "TRYAGAIN": "the slot is on its way to another node: try again",
    "CLUSTERDOWN": "nodes of the cluster are missing: see CLUSTER INFO",
}


def lost(address: Address, error: BaseException | str) -> OperationalError:
    """The server cannot be reached or fell silent."""
    cause = str(error) or type(error).__name__
    return OperationalError(
        f"cannot reach Redis at {address.masked}: {cause}; check that it runs and that the URL is right"
    )


def refused(address: Address, error: BaseException) -> OperationalError:
    """The server answered with an error."""
    cause = str(error).rstrip(".")
    word = cause.partition(" ")[0]
    if word in _ELSEWHERE:
        place = cause.rpartition(" ")[2] if word in ("MOVED", "ASK") else ""
        return Elsewhere(f"Redis at {address.masked} refused: {cause}; {_ELSEWHERE[word]}", word, place)
    step = _NEXT_STEP.get(word.lstrip("-"), "see the server's log")
    for words, advice in _SAID.items():
        if words in cause:
            step = advice
    if word == "NOAUTH":  # what follows is about the commands that we send
        cause = word
    return OperationalError(f"Redis at {address.masked} refused: {cause}; {step}")


def too_few(address: Address, there: int) -> OperationalError:
    """What was written is on the server, and on fewer replicas than ``wait_replicas`` asks for."""
    error = OperationalError(
        f"Redis at {address.masked}: {there} of {address.replicas} replicas had it within "
        f"{address.replicas_within} ms; check the replicas, or lower wait_replicas"
    )
    error.uncertain = True
    return error
