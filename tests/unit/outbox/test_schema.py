"""The statements that make the table, and the URLs of outboxes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from celeriac.client.outboxes import outbox_urls
from celeriac.conf.settings import Settings
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.outbox import ddl
from celeriac.outbox.stores import store_of


def test_twice_is_as_once() -> None:
    connection = sqlite3.connect(":memory:")
    for _ in range(2):
        for statement in ddl("sqlite"):
            connection.execute(statement)
    connection.close()


def test_other_databases_have_none() -> None:
    with pytest.raises(ImproperlyConfigured, match="no outbox for mysql: it is for postgresql and sqlite"):
        ddl("mysql")


@pytest.mark.parametrize("url", ["mysql://u:secret@h/db", "app.db", "sqlite://host/x", "sqlite:///:memory:"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        store_of(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    store = store_of(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(OperationalError, match="there is no database"):
        store.take(10)
    with pytest.raises(OperationalError, match="there is no database"):
        store.standing()
    assert list(tmp_path.iterdir()) == []


def test_one_url_or_several() -> None:
    conf = Settings()
    assert outbox_urls(conf) == []
    conf.outbox_url = "sqlite:///a.db"
    assert outbox_urls(conf) == ["sqlite:///a.db"]
    conf.outbox_url = ["sqlite:///a.db", "postgresql://h/b"]
    assert outbox_urls(conf) == ["sqlite:///a.db", "postgresql://h/b"]
    conf.outbox_url = [7]
    with pytest.raises(ImproperlyConfigured, match="must be a URL or a list of URLs"):
        outbox_urls(conf)
