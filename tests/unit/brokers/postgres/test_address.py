"""URLs and options of PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.brokers.postgres.address import address, schema_name
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured
from celeriac.ports import AdapterOptions


def _options(**transport: Any) -> AdapterOptions:
    return AdapterOptions(transport=transport)


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "db+postgresql", "postgresql+psycopg", "db+postgresql+psycopg2"]
)
def test_all_that_libpq_knows_may_stand_in_the_url(scheme: str) -> None:
    found = address(f"{scheme}://me:secret@db.example:6432/app?sslmode=require&options=-c%20jit%3Doff", _options())
    wanted = {"user": "me", "password": "secret", "host": "db.example", "port": "6432", "dbname": "app"}
    assert {name: found.parameters[name] for name in wanted} == wanted
    assert (found.parameters["sslmode"], found.parameters["options"]) == ("require", "-c jit=off")
    assert found.parameters["application_name"] == "celeriac"
    assert "secret" not in found.masked
    assert found.server == ("postgresql", "db.example:6432/app#celeriac")


def test_what_is_ours_may_stand_in_the_url_or_in_the_options() -> None:
    found = address("postgresql://h/d?schema=jobs&listen=false&auto_migrate=0", _options())
    assert (found.schema, found.listen, found.auto_migrate) == ("jobs", False, False)
    found = address("postgresql://h/d", _options(schema="jobs", listen=False, auto_migrate="no"))
    assert (found.schema, found.listen, found.auto_migrate) == ("jobs", False, False)
    found = address("postgresql://h/d?schema=mine", _options(schema="jobs"))
    assert (found.schema, found.listen, found.auto_migrate) == ("mine", True, True)
    assert not {"schema", "listen", "auto_migrate"} & set(found.parameters)
    assert schema_name("", _options()) == "celeriac"


@pytest.mark.parametrize(
    ("url", "transport", "reason"),
    [
        ("postgresql://h/d?listen=perhaps", {}, "listen is 'perhaps', not true or false"),
        ("postgresql://h/d", {"auto_migrate": 7}, "auto_migrate is 7"),
        ("postgresql://h/d?schema=pg_jobs", {}, "cannot be the name of a schema"),
        ("postgresql://h/d", {"schema": "x" * 41}, "cannot be the name of a schema"),
        ("postgresql://h/d", {"schema": "it's"}, "cannot be the name of a schema"),
        ("postgresql://u:hidden@h/d?colour=red", {}, "is no URL of PostgreSQL"),
        ("postgresql://h/d?colour=red", {}, "colour"),
    ],
)
def test_what_is_wrong_is_told(url: str, transport: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason) as caught:
        address(url, _options(**transport))
    assert "hidden" not in str(caught.value)


def test_options_without_a_meaning_are_told() -> None:
    with pytest.warns(CeleryWarning, match="without a meaning on PostgreSQL: visibility_timeout"):
        address("postgresql://h/d", _options(visibility_timeout=3600, result_chord_ordered=True))
    with pytest.raises(ImproperlyConfigured, match="global_keyprefix"):
        address("postgresql://h/d", AdapterOptions(key_prefix="x:"))


def test_tls() -> None:
    assert address("postgresql://h/d", AdapterOptions(ssl=True)).parameters["sslmode"] == "verify-full"
    found = address("postgresql://h/d", AdapterOptions(ssl={"sslrootcert": "/ca.pem"})).parameters
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert address("postgresql://h/d?sslmode=require", AdapterOptions(ssl=True)).parameters["sslmode"] == "require"
    with pytest.raises(ImproperlyConfigured, match="libpq's names"):
        address("postgresql://h/d", AdapterOptions(ssl={"ssl_cert_reqs": "none"}))


def test_other_addresses() -> None:
    found = address("postgresql://a/d", AdapterOptions(alternates=["postgresql://b:7/d"]))
    assert [(place["host"], place.get("port")) for place in found.places] == [("a", None), ("b", "7")]
