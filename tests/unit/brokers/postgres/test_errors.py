"""What is told when there is no session with the server."""

from __future__ import annotations

import psycopg
import pytest

from celeriac.brokers.postgres.address import address
from celeriac.brokers.postgres.errors import lost
from celeriac.ports import AdapterOptions


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('FATAL:  database "nodb" does not exist', "create it, or name another one in the URL"),
        ('FATAL:  password authentication failed for user "u"', "check user and password in the URL"),
        ("fe_sendauth: no password supplied", "it wants a password: put it into the URL"),
        ("FATAL:  sorry, too many clients already", "raise max_connections, or put a pooler in front of it"),
        ("Connection refused", "check that it runs and that the URL is right"),
    ],
)
def test_the_cause_says_what_to_do(said: str, advice: str) -> None:
    where = address("postgresql://host/nodb", AdapterOptions())
    assert str(lost(where, psycopg.OperationalError(said))).endswith(f"{' '.join(said.split())}; {advice}")
