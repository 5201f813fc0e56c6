"""What is told when a server refuses, or is none."""

from __future__ import annotations

import hiredis
import pytest

from celeriac.brokers.redis.address import one_server
from celeriac.brokers.redis.blocking import Connection
from celeriac.brokers.redis.errors import refused
from celeriac.ports import AdapterOptions

HELLO = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> ..."


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (HELLO, "refused: NOAUTH; it wants a password: put it into the URL"),
        ("WRONGPASS invalid pair.", "refused: WRONGPASS invalid pair; check user and password in the URL"),
        (
            "ERR DB index is out of range",
            "refused: ERR DB index is out of range; name another database in the URL, or see databases",
        ),
        ("ERR so what", "refused: ERR so what; see the server's log"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(said: str, told: str) -> None:
    address = one_server("redis://u:hidden@host/0", AdapterOptions())
    assert str(refused(address, hiredis.ReplyError(said))).startswith(f"Redis at redis://u:********@host/0 {told}")


def test_another_kind_of_server_breaks_the_connection_and_nothing_else() -> None:
    connection = object.__new__(Connection)
    connection._reader = hiredis.Reader(notEnoughData=None)
    connection._reader.feed(b"AMQP\x00\x00\x09\x01")
    with pytest.raises(ConnectionResetError, match="no Redis"):
        connection.read(0.0)
