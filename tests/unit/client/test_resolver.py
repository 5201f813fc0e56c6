"""URLs to adapters: schemes, defaults, masking, and what is said when it cannot be."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac.client import resolver
from celeriac.conf.settings import Settings
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import Bus, Ledger, Limiter, Rules, RulesDesk, Timekeeper, Unified
from tests.views import QueueOnly  # noqa: F401 - the URLs queues+...


def conf(**changes: Any) -> Settings:
    return Settings(changes)


def test_memory_has_everything() -> None:
    options = resolver.adapter_options(conf())
    for make in (
        resolver.broker,
        resolver.store,
        resolver.publisher,
        resolver.reader,
        resolver.caller,
        resolver.dead_letters,
    ):
        assert make("memory://resolver", options) is not None


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("rediss1://x", "did you mean rediss://?"),
        ("redsi://x", "did you mean redis://?"),
        ("sqlit:///x", "did you mean sqlite://?"),
        ("kafka://x", "known are memory://"),
        ("sqs://x", "no adapter for sqs:// yet"),
        ("cache+memory://", "no adapter for cache+memory:// yet"),
        ("localhost:6379", "is no URL"),
        ("", "is no URL"),
        ("django-db", "django-celery-results, which is not there"),
    ],
)
def test_wrong_schemes_are_explained(url: str, hint: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        resolver.adapter(url)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_passwords_are_never_shown() -> None:
    url = "redsi://user:hunter2@host/0"
    assert "hunter2" not in resolver.mask(url)
    with pytest.raises(ImproperlyConfigured) as caught:
        resolver.adapter(url)
    assert "hunter2" not in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("hiredis", "celeriac.brokers.redis"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'celeriac\[redis\]'"):
        resolver.publisher("redis://localhost", resolver.adapter_options(conf()))


def test_which_url() -> None:
    both = conf(broker_url="redis://a", broker_read_url="redis://r", broker_write_url="redis://w")
    assert resolver.read_url(both, "d") == "redis://r"
    assert resolver.write_url(both, "d") == "redis://w"
    assert resolver.write_url(conf(broker_url="redis://a"), "d") == "redis://a"
    assert resolver.write_url(conf(broker_url=["redis://a", "redis://b"]), "d") == "redis://a"
    assert resolver.write_url(conf(broker_url="redis://a;redis://b"), "d") == "redis://a"
    assert resolver.write_url(conf(broker_url="memory"), "d") == "memory://"
    assert resolver.read_url(conf(), "sqlite:///d") == "sqlite:///d"


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("redis://a/1", "redis://a/1"),
        ("redis", "redis://"),
        ("disabled://", None),
        ("disabled", None),
        ("", None),
        ("db+sqlite:///x.db", "sqlite:///x.db"),
        ("db+postgresql://x", "postgresql://x"),
        ("db+postgresql+psycopg2://x", "postgresql+psycopg2://x"),
    ],
)
def test_which_result_url(backend: str, expected: str | None) -> None:
    assert resolver.result_url(conf(result_backend=backend, broker_url="redis://a"), "d") == expected


def test_other_urls_of_a_setting_are_alternates() -> None:
    several = conf(broker_url=["redis://a", "redis://b;redis://c"], broker_write_url="redis://w;redis://v")
    assert resolver.adapter_options(several, "redis://a").alternates == ["redis://b", "redis://c"]
    assert resolver.adapter_options(several, "redis://w").alternates == ["redis://v"]
    assert resolver.adapter_options(several, "redis://elsewhere").alternates == ()
    assert resolver.adapter_options(conf(broker_url="redis://a"), "redis://a").alternates == ()


def test_results_with_several_urls() -> None:
    several = conf(result_backend="redis://a/1;redis://b/1", broker_url="redis://x")
    assert resolver.result_url(several, "d") == "redis://a/1"
    assert resolver.store_options(several).alternates == ["redis://b/1"]
    assert resolver.store_options(conf(result_backend="redis://a/1")).alternates == ()
    assert resolver.store_options(conf(result_backend="disabled://")).alternates == ()


def test_the_strategy_orders_alternates() -> None:
    urls = [f"redis://{number}" for number in range(20)]

    def of(strategy: object) -> list[str]:
        found = resolver.adapter_options(conf(broker_url=urls, broker_failover_strategy=strategy), urls[0]).alternates
        return list(found)

    assert of("round-robin") == of(None) == urls[1:]
    assert of("shuffle") != urls[1:]
    assert sorted(of("shuffle")) == sorted(urls[1:])
    assert of(lambda these: itertools.cycle(reversed(these))) == urls[:0:-1]
    with pytest.raises(ImproperlyConfigured, match="broker_failover_strategy must be"):
        of("fastest")


def test_without_settings_one_file_keeps_both() -> None:
    assert resolver.result_url(conf(), "sqlite:///d") == "sqlite:///d"
    assert resolver.result_url(conf(broker_url="redis://a"), "sqlite:///d") is None


def test_the_default_file_lies_beside_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolver.default_url(None) == f"sqlite:///{tmp_path}/celeriac.db"
    assert resolver.default_url("no.such.module") == f"sqlite:///{tmp_path}/celeriac.db"
    assert resolver.default_url("/srv/my proj/tasks.py") == "sqlite:////srv/my%20proj/celeriac.db"
    assert resolver.default_url(__name__) == f"sqlite:///{Path(__file__).parent}/celeriac.db"


def test_options_come_from_settings() -> None:
    settings = conf(
        broker_transport_options={"visibility_timeout": 60, "global_keyprefix": "p:"},
        result_backend_transport_options={"global_keyprefix": "r:"},
        broker_connection_timeout=2,
        broker_pool_limit=3,
        max_message_bytes=1000,
        worker_lease=5,
        timezone="Europe/Berlin",
        broker_use_ssl={"ssl_cert_reqs": "none"},
        redis_max_connections=7,
    )
    options = resolver.adapter_options(settings, owner="child-1")
    assert (options.owner, options.lease, options.visibility_timeout, options.key_prefix) == ("child-1", 5, 60, "p:")
    assert (options.connect_timeout, options.pool_limit, options.max_message_bytes) == (2, 3, 1000)
    assert (options.zone, options.ssl) == ("Europe/Berlin", {"ssl_cert_reqs": "none"})
    store = resolver.store_options(settings)
    assert (store.key_prefix, store.pool_limit, store.connect_timeout, store.ssl) == ("r:", 7, 2, None)


def test_dead_letters_without_bounds() -> None:
    usual = resolver.adapter_options(conf())
    assert (usual.dead_letter_expires, usual.dead_letter_limit, usual.dead_letter_max_bytes) == (
        14 * 86400.0, 10_000, 256 * 1024 * 1024,
    )  # fmt: skip
    unbounded = conf(dead_letter_expires=None, dead_letter_limit=None, dead_letter_max_bytes=None)
    options = resolver.adapter_options(unbounded)
    assert options.dead_letter_expires == math.inf
    assert options.dead_letter_limit == options.dead_letter_max_bytes == sys.maxsize


def test_an_adapter_that_shows_no_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "adapter", lambda url: object())
    with pytest.raises(ImproperlyConfigured, match="nats://a cannot show its dead letters"):
        resolver.dead_letters("nats://a", resolver.adapter_options(conf()))


def test_options_have_defaults() -> None:
    options = resolver.adapter_options(conf(broker_pool_limit=None))
    assert (options.lease, options.visibility_timeout, options.pool_limit, options.zone) == (30, 3600, 1, "UTC")


def test_what_is_said_of_a_database_counts_for_both() -> None:
    given = {"schema": "jobs", "listen": False}
    one = conf(
        broker_url="postgresql://h/d",
        result_backend="db+postgresql://h/d",
        broker_transport_options=given,
        broker_use_ssl=True,
    )
    assert resolver.store_options(one).transport == given
    assert resolver.store_options(one).ssl is True
    two = conf(broker_url="postgresql://h/d", result_backend="postgresql://h/other", broker_transport_options=given)
    assert resolver.store_options(two).transport == {}
    own = {"schema": "results"}
    both = conf(
        broker_url="postgresql://h/d",
        result_backend="postgresql://h/d",
        broker_transport_options=given,
        result_backend_transport_options=own,
    )
    assert resolver.store_options(both).transport == {"schema": "results", "listen": False}


def test_which_ledger() -> None:
    def url(**changes: Any) -> str | None:
        return resolver.ledger_url(conf(**changes), changes["broker_url"])

    queues = "queues+memory://q"
    assert url(broker_url="redis://a", result_backend="memory://r") == "redis://a", "the broker's own"
    assert url(broker_url="redis://a", ledger_url="memory://l") == "memory://l"
    assert url(broker_url=queues, result_backend="redis://r") == "redis://r"
    assert url(broker_url=queues, result_backend="redis://r", ledger_url="memory://l") == "memory://l"
    assert url(broker_url=queues, result_backend="queues+memory://r") is None
    assert url(broker_url=queues, result_backend="unheard-of://r") is None
    assert url(broker_url=queues) is None


def test_what_a_ledger_beside_is_told() -> None:
    settings = conf(
        broker_url="queues+memory://q",
        broker_use_ssl=True,
        broker_transport_options={"global_keyprefix": "b:"},
        result_backend="redis://r",
        result_backend_transport_options={"global_keyprefix": "r:"},
    )
    options = resolver.adapter_options(settings, "queues+memory://q", owner="me")
    told = options.ledger_options
    assert told is not None
    assert (options.ledger_url, told.owner, told.key_prefix, told.ssl) == ("redis://r", "me", "r:", None)
    settings.ledger_url = "redis://elsewhere"
    told = resolver.adapter_options(settings, "queues+memory://q").ledger_options
    assert told is not None
    assert (told.key_prefix, told.ssl) == ("", None), "they are said of another kind of server"
    own = resolver.adapter_options(settings, "redis://a")
    assert (own.ledger_url, own.ledger_options) == ("", None)


def test_queues_and_a_ledger_beside_them() -> None:
    settings = conf(broker_url="queues+memory://q", result_backend="memory://r")
    options = resolver.adapter_options(settings, "queues+memory://q")
    broker = resolver.broker("queues+memory://q", options)
    assert isinstance(broker, Ledger)
    assert isinstance(broker, Rules)
    assert isinstance(broker, Limiter)
    assert isinstance(broker, Bus)
    assert not isinstance(broker, Unified)
    assert not isinstance(broker, Timekeeper)
    assert isinstance(resolver.publisher("queues+memory://q", options), RulesDesk)
    alone = resolver.adapter_options(conf(broker_url="queues+memory://q"), "queues+memory://q")
    assert not isinstance(resolver.broker("queues+memory://q", alone), Ledger)
    assert not isinstance(resolver.publisher("queues+memory://q", alone), RulesDesk)


def test_one_that_cannot_limit_keeps_its_own_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.brokers import memory

    class Cluster:
        """A broker with ledger and rules, on its own clock, that finishes and does not limit."""

        def __init__(self, real: Any) -> None:
            self.now = lambda: 1000.0
            for name in dir(real):
                if not name.startswith("_") and name not in ("permit", "freed"):
                    setattr(self, name, getattr(real, name))

    real = memory.broker
    monkeypatch.setattr(memory, "broker", lambda url, options: Cluster(real(url, options)))
    broker: Any = resolver.broker("memory://cluster", resolver.adapter_options(conf(), "memory://cluster"))
    for ability in (Limiter, Ledger, Rules, Bus, Unified, Timekeeper):
        assert isinstance(broker, ability)
    assert broker.now() == 1000.0
