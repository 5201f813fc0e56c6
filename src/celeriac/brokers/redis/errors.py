"""Turns what sockets and Redis say into ``OperationalError``: the server, the cause, the next step, on one line."""

from __future__ import annotations

from celeriac.brokers.redis.address import Address
from celeriac.exceptions import OperationalError

__all__ = ["lost", "refused"]

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
    "NOREPLICAS": "too few replicas are connected: see min-replicas-to-write",
}


def lost(address: Address, error: BaseException | str) -> OperationalError:
    """The server cannot be reached or fell silent."""
    cause = str(error) or type(error).__name__
    return OperationalError(
        f"cannot reach Redis at {address.masked}: {cause}; check that it runs and that the URL is right"
    )


def refused(address: Address, error: BaseException) -> OperationalError:
    """The server answered with an error."""
    cause = str(error)
    step = _NEXT_STEP.get(cause.partition(" ")[0].lstrip("-"), "see the server's log")
    return OperationalError(f"Redis at {address.masked} refused: {cause}; {step}")
