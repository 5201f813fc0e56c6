"""Django: the table by its migrations, `delay_on_commit`, and the names of databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery
from celeriac.contrib.django import DjangoTask
from celeriac.exceptions import ImproperlyConfigured
from tests.databases import empty_database
from tests.integration.applications import set_up_django


@pytest.fixture(params=["sqlite", "postgresql"])
def using(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty database of Django's."""
    if request.param == "sqlite":
        name, url = "default", f"sqlite:///{tmp_path / 'django.db'}"
    else:
        name = "postgresql"
        url = empty_database(request.getfixturevalue("postgres_server"), "django")
    set_up_django(name, url)
    from django.db import connections

    yield name, url
    connections[name].close()


def tables(name: str) -> list[str]:
    from django.db import connections

    return list(connections[name].introspection.table_names())


def test_migrations_make_the_table(using: tuple[str, str]) -> None:
    from django.core.management import call_command
    from django.db import transaction

    name, url = using
    call_command("migrate", database=name, verbosity=0)
    assert "celeriac_outbox" in tables(name)
    call_command("makemigrations", "celeriac", check=True, dry_run=True, verbosity=0)
    with Celery("shop", broker="memory://django", outbox_url=url) as app:
        with transaction.atomic(using=name), app.transaction(using=name):
            app.send_task("a")
        with app.transaction(using=name), pytest.raises(ImproperlyConfigured, match=r"transaction\.atomic"):
            app.send_task("a")
    call_command("migrate", "celeriac", "zero", database=name, verbosity=0)
    assert "celeriac_outbox" not in tables(name)


def test_delay_on_commit(using: tuple[str, str]) -> None:
    from django.db import transaction

    name, _ = using
    with Celery("shop", broker="memory://django-on-commit", task_cls=DjangoTask) as app:
        task: Any = app.task(name="t", shared=False)(lambda a, b=0: a + b)

        def ready() -> int:
            found = app.sender.publisher.depth(["celery"], timeout=1.0)["celery"].ready
            app.sender.publisher.purge("celery", timeout=1.0)
            return found

        def work(fails: bool) -> None:
            with transaction.atomic(using=name):
                assert task.apply_async_on_commit((1,), {"b": 2}, using=name) is None
                assert ready() == 0
                if fails:
                    raise KeyError

        work(False)
        assert ready() == 1
        with pytest.raises(KeyError):
            work(True)
        assert ready() == 0
        task.apply_async_on_commit((1,), using=name)
        assert ready() == 1, "at once when no transaction is open"
        if name == "default":
            with transaction.atomic():
                assert task.delay_on_commit(1, b=2) is None
                assert ready() == 0
            assert ready() == 1
