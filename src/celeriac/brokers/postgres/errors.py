"""Turns psycopg's errors into one ``OperationalError`` line: which server, what is wrong, what to do.

Called wherever this package meets ``psycopg.Error``; nothing of psycopg leaves the package.
"""

from __future__ import annotations

import psycopg
from psycopg import errors

from celeriac.brokers.postgres.address import Address
from celeriac.exceptions import OperationalError

__all__ = ["Refused", "closed", "is_transient", "lost", "refused", "silent"]

_ADVICE: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.InvalidPassword, "check user and password in the URL"),
    (errors.InvalidAuthorizationSpecification, "check the user in the URL, and pg_hba.conf"),
    (errors.InvalidCatalogName, "create the database, or name another one in the URL"),
    (errors.TooManyConnections, "raise max_connections, or put a pooler in front of it"),
    (errors.InsufficientPrivilege, "grant the role what docs/how-to/postgresql.md lists"),
    (errors.ReadOnlySqlTransaction, "it is a standby: point the URL at the primary (target_session_attrs=read-write)"),
    (errors.DiskFull, "free some space"),
    (errors.ProgramLimitExceeded, "a message or a result is too large"),
    (errors.OutOfMemory, "see the server's log"),
    (errors.UndefinedTable, "the schema is not complete: run `celeriac -A proj migrate`"),
    (errors.UndefinedFunction, "the schema is not complete: run `celeriac -A proj migrate`"),
    (errors.DuplicatePreparedStatement, "a pooler in transaction mode stands in between: set listen=false in the URL"),
    (errors.InvalidSqlStatementName, "a pooler in transaction mode stands in between: set listen=false in the URL"),
    (errors.InvalidSchemaName, "the schema is missing: run `celeriac -A proj migrate`"),
)
#: What servers say before there is a session, for which psycopg has no classes.
_SAID = (
    ("password authentication failed", "check user and password in the URL"),
    ("no password supplied", "it wants a password: put it into the URL"),
    ("no pg_hba.conf entry", "check the user in the URL, and pg_hba.conf"),
    ("does not exist", "create it, or name another one in the URL"),
    ("too many clients", "raise max_connections, or put a pooler in front of it"),
    ("remaining connection slots", "raise max_connections, or put a pooler in front of it"),
    ("starting up", "it is still starting: try again"),
)
#: PgBouncer's word for what it does not pass on; psycopg has no class for it.
_FOREIGN = "unsupported startup parameter"
_TRANSIENT = (errors.SerializationFailure, errors.DeadlockDetected)


class Refused(OperationalError):
    """The server answered, and nothing of the call was written."""


def is_transient(error: psycopg.Error) -> bool:
    """Another transaction was in the way, and nothing was written: to be tried again at once."""
    return isinstance(error, _TRANSIENT)


def _cause(address: Address, error: BaseException | str) -> str:
    text = str(error).strip() or type(error).__name__
    text = " ".join(text.partition("\n")[0].split()).removeprefix("consuming input failed: ")
    password = address.parameters.get("password")
    return text.replace(password, "********") if password else text


def _step(error: BaseException | str, otherwise: str) -> str:
    """What to do."""
    if _FOREIGN in str(error):
        return "leave it out of the URL, or name it in the pooler's ignore_startup_parameters"
    for kind, advice in reversed(_ADVICE):
        if isinstance(error, kind):
            return advice
    return otherwise


def lost(address: Address, error: BaseException | str, *, uncertain: bool = False) -> OperationalError:
    """The server cannot be reached, or the connection to it broke; ``uncertain``: after something was sent."""
    text = str(error)
    said = next((advice for words, advice in _SAID if words in text), "check that it runs and that the URL is right")
    step = _step(error, said)
    failure = OperationalError(f"cannot reach PostgreSQL at {address.masked}: {_cause(address, error)}; {step}")
    failure.uncertain = uncertain
    return failure


def silent(address: Address, seconds: float, *, uncertain: bool) -> OperationalError:
    """It did not answer in time."""
    return lost(address, f"no answer within {seconds:.1f} s", uncertain=uncertain)


def refused(address: Address, error: psycopg.Error) -> Refused:
    """The server answered with an error."""
    step = _step(error, "see the server's log")
    return Refused(f"PostgreSQL at {address.masked} refused: {_cause(address, error)}; {step}")


def closed(address: Address) -> OperationalError:
    """Used without being open."""
    return OperationalError(f"PostgreSQL at {address.masked}: it was closed by this program; call open() first")
