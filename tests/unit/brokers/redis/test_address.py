"""URLs and options of Redis."""

from __future__ import annotations

import ssl

import pytest

from celeriac.brokers.redis.urls import parse
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

OPTIONS = AdapterOptions()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("localhost", 6379, "", "", "", 0)),
        ("redis://h", ("h", 6379, "", "", "", 0)),
        ("redis://h:1/2", ("h", 1, "", "", "", 2)),
        ("redis://:s%40cret@h/3", ("h", 6379, "", "", "s@cret", 3)),
        ("redis://u:p@[::1]:7/0", ("::1", 7, "", "u", "p", 0)),
        ("redis://h/?db=4", ("h", 6379, "", "", "", 4)),
        ("redis://h/0?virtual_host=5", ("h", 6379, "", "", "", 5)),
        ("redis+socket:///run/r.sock", ("localhost", 6379, "/run/r.sock", "", "", 0)),
        ("redis+socket://u:p@/run/r.sock?virtual_host=2", ("localhost", 6379, "/run/r.sock", "u", "p", 2)),
        ("unix:///run/r.sock?db=1", ("localhost", 6379, "/run/r.sock", "", "", 1)),
        ("redis://h?username=u&password=p", ("h", 6379, "", "u", "p", 0)),
    ],
)
def test_urls(url: str, expected: tuple[object, ...]) -> None:
    got = parse(url, OPTIONS)
    assert (got.host, got.port, got.path, got.username, got.password, got.db) == expected
    assert got.tls is None


@pytest.mark.parametrize("url", ["redis://h/x", "redis://h/-1", "redis://h:port/0", "redis://h?socket_timeout=soon"])
def test_what_is_wrong_is_named(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="redis://h"):
        parse(url, OPTIONS)


@pytest.mark.parametrize(
    "url", ["redis://u:secret@h/1", "redis://:secret@h", "redis://h?password=secret", "redis+socket://:secret@/s"]
)
def test_the_password_is_masked(url: str) -> None:
    assert "secret" not in parse(url, OPTIONS).masked
    assert parse(url, OPTIONS).password == "secret"


def test_an_unknown_option_is_named() -> None:
    with pytest.warns(UserWarning, match="sokcet_timeout"):
        parse("redis://h?sokcet_timeout=1", OPTIONS)


def test_options_of_transport_and_query() -> None:
    options = AdapterOptions(transport={"socket_timeout": 3, "socket_connect_timeout": 2}, key_prefix="p:")
    got = parse("redis://h?socket_timeout=7", options)
    assert (got.reply_timeout, got.connect_timeout, got.key_prefix) == (7.0, 2.0, "p:")


def test_equal_servers_are_equal() -> None:
    first, second = parse("redis://h/1", OPTIONS), parse("rediss://u:p@h:6379/1", OPTIONS)
    assert first.server == second.server
    assert first.server != parse("redis://h/2", OPTIONS).server
    assert first.server != parse("redis://h/1", AdapterOptions(key_prefix="x")).server


def test_tls_by_setting() -> None:
    for given in ({"ssl_cert_reqs": ssl.CERT_OPTIONAL}, {"cert_reqs": "optional"}):
        address = parse("redis://h", AdapterOptions(ssl=given))
        assert address.tls is not None
        assert list(address.tls) == ["cert_reqs"]
    assert parse("redis://h", AdapterOptions(ssl=True)).tls == {}
    assert parse("redis://h", AdapterOptions(ssl=False)).tls is None


def test_what_is_no_demand_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="ssl_cert_reqs"):
        parse("rediss://h?ssl_cert_reqs=perhaps", OPTIONS)


def test_several_urls() -> None:
    got = parse("redis://:x@a;redis://b:2/1", OPTIONS)
    assert [got.place, *(each.place for each in got.others)] == ["a:6379", "b:2"]
    assert parse("redis://:x@a", AdapterOptions(alternates=("redis://b:2/1",))) == got
    assert parse("redis://:p;w@a", OPTIONS).password == "p;w"
    assert parse("redis://a;redis://b", OPTIONS).server == parse("redis://b;redis://a", OPTIONS).server


@pytest.mark.parametrize(
    ("value", "expected"), [(2, (2, 1000)), ("1", (1, 1000)), ("1,500", (1, 500)), ((1, 50), (1, 50)), ([0], (0, 1000))]
)
def test_replicas_that_are_waited_for(value: object, expected: tuple[int, int]) -> None:
    got = parse("redis://a", AdapterOptions(transport={"wait_replicas": value}))
    assert (got.replicas, got.replicas_within) == expected


@pytest.mark.parametrize("value", ["many", (1, 0), (1, 9000), -1, (1, 2, 3), {}])
def test_replicas_that_make_no_sense(value: object) -> None:
    with pytest.raises(ImproperlyConfigured, match="wait_replicas"):
        parse("redis://a", AdapterOptions(transport={"wait_replicas": value}))
