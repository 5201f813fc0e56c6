"""TLS verifies, unless it is told not to."""

from __future__ import annotations

import ssl

import pytest

from celeriac.conf.tls import server_name, tls_context, tls_options
from celeriac.exceptions import ImproperlyConfigured, SecurityWarning


def test_it_is_verified_by_default() -> None:
    context = tls_context({}, "Redis")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("word", ["none", "CERT_NONE", ssl.CERT_NONE, 0])
def test_verifying_nothing_warns(word: object) -> None:
    with pytest.warns(SecurityWarning, match="ssl_cert_reqs=none: anybody on the way to RabbitMQ"):
        context = tls_context({"cert_reqs": word}, "RabbitMQ")
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname


@pytest.mark.parametrize("word", ["optional", ssl.CERT_OPTIONAL])
def test_an_optional_certificate(word: object) -> None:
    assert tls_context({"cert_reqs": word}, "Redis").verify_mode == ssl.CERT_OPTIONAL


@pytest.mark.parametrize("word", [False, "false", "0", "no"])
def test_any_host_name(word: object) -> None:
    context = tls_context({"check_hostname": word}, "Redis")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_unusable_files_are_named_with_their_server() -> None:
    with pytest.raises(ImproperlyConfigured, match="the TLS files of RabbitMQ"):
        tls_context({"ca_certs": "/nowhere/ca.pem"}, "RabbitMQ")


def test_options_of_a_setting_and_of_a_url() -> None:
    """In a URL only what begins with ``ssl_`` is one; it wins."""
    found = tls_options(
        {"cert_reqs": "optional", "ssl_ca_certs": "a", "colour": 1}, {"ssl_ca_certs": "b", "keyfile": "k"}
    )
    assert found == {"cert_reqs": "optional", "ca_certs": "b"}
    assert tls_options(True, {}) == {}
    with pytest.raises(ImproperlyConfigured, match="ssl_cert_reqs='perhaps'"):
        tls_options(None, {"ssl_cert_reqs": "perhaps"})


def test_the_name_in_the_certificate() -> None:
    assert server_name({}, "10.0.0.1") == "10.0.0.1"
    assert server_name({"server_hostname": "redis.internal"}, "10.0.0.1") == "redis.internal"
