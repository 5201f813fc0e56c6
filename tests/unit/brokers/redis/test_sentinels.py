"""``sentinel://``: what Celery's URLs and options mean."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.urls import parse
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

URLS = "sentinel://:s3cret@h1:26379;sentinel://:s3cret@h2;sentinel://h3:3/2"


def parsed(url: str = URLS, alternates: tuple[str, ...] = (), **transport: Any) -> Address:
    return parse(url, AdapterOptions(transport={"master_name": "m", **transport}, alternates=alternates))


def test_the_servers_account_and_database() -> None:
    address = parsed()
    assert (address.master, address.password, address.db) == ("m", "s3cret", 2)
    assert [each.place for each in address.sentinels] == ["h1:26379", "h2:26379", "h3:3"]
    assert {(each.password, each.db, each.tls) for each in address.sentinels} == {("", 0, None)}
    assert "s3cret" not in address.masked


def test_the_list_of_the_resolver_is_the_same() -> None:
    first, *others = URLS.split(";")
    assert parsed(first, tuple(others)) == parsed()


def test_the_order_of_the_sentinels_does_not_matter_to_plans() -> None:
    assert parsed("sentinel://a;sentinel://b/1").server == parsed("sentinel://b;sentinel://a/1").server
    assert parsed("sentinel://a/1").server != parsed("sentinel://a/2").server
    assert parsed("sentinel://a/1").server != parsed("sentinel://a/1", master_name="n").server


def test_the_name_of_the_master_in_the_url() -> None:
    assert parse("sentinel://a?master_name=x;sentinel://b/1", AdapterOptions()).master == "x"
    with pytest.raises(ImproperlyConfigured, match="master_name"):
        parse("sentinel://a;sentinel://b/1", AdapterOptions())


def test_how_the_sentinels_are_asked() -> None:
    kwargs = {"username": "u", "password": "p", "ssl": True, "ssl_ca_certs": "/ca", "socket_timeout": 0.5}
    (sentinel,) = parsed("sentinel://a", sentinel_kwargs=kwargs).sentinels
    assert (sentinel.username, sentinel.password, sentinel.connect_timeout) == ("u", "p", 0.5)
    assert sentinel.tls == {"ca_certs": "/ca"}
    (sentinel,) = parsed("sentinel://a", sentinel_username="u", sentinel_password="p").sentinels
    assert (sentinel.username, sentinel.password, sentinel.tls) == ("u", "p", None)


def test_what_is_not_known_is_told() -> None:
    with pytest.warns(UserWarning, match="'min_other'"):
        parsed(sentinel_kwargs={"min_other": 1})
    with pytest.raises(ImproperlyConfigured, match="sentinel_kwargs"):
        parsed(sentinel_kwargs=["password"])
    with pytest.raises(ImproperlyConfigured, match="timeouts"):
        parsed(sentinel_kwargs={"socket_timeout": "soon"})
