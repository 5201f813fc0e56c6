"""Settings and command line become NodeOptions; the command line wins."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac.client.registry import Queues
from celeriac.conf.settings import Settings
from celeriac.exceptions import ImproperlyConfigured, QueueNotFound
from celeriac.supervisor.node import Given, pool_name, resolve
from celeriac.worker.options import NodeOptions


def resolved(settings: dict[str, Any] | None = None, **given: Any) -> NodeOptions:
    conf = Settings(settings or {})
    return resolve(conf, Queues.from_settings(conf), Given(**given), hostname="w@h", processors=4)


def test_defaults() -> None:
    assert resolved() == NodeOptions(hostname="w@h", queues=("celery",), concurrency=4)


def test_settings_count() -> None:
    options = resolved(
        {
            "worker_concurrency": 3,
            "worker_pool": "threads",
            "task_time_limit": 60,
            "task_soft_time_limit": 50,
            "worker_max_tasks_per_child": 7,
            "worker_grace": 3,
            "worker_enable_remote_control": False,
            "task_default_queue": "jobs",
        }
    )
    assert (options.concurrency, options.pool, options.queues) == (3, "threads", ("jobs",))
    assert (options.time_limit, options.soft_time_limit, options.grace) == (60, 50, 3)
    assert (options.max_tasks_per_child, options.remote_control) == (7, False)


def test_the_command_line_wins() -> None:
    options = resolved({"worker_concurrency": 3, "task_time_limit": 60}, concurrency=2, time_limit=5.0)
    assert (options.concurrency, options.time_limit) == (2, 5.0)


def test_zero_means_none() -> None:
    options = resolved({"task_time_limit": 60}, time_limit=0.0, max_tasks_per_child=0, concurrency=0)
    assert (options.time_limit, options.max_tasks_per_child, options.concurrency) == (None, None, 4)


@pytest.mark.parametrize(
    ("settings", "given", "limit"),
    [
        ({}, {}, None),
        ({"worker_prefetch_multiplier": 4}, {}, 4),
        ({"worker_prefetch_multiplier": 0}, {}, None),
        ({}, {"prefetch_multiplier": 1}, 1),
        ({}, {"prefetch_multiplier": 2, "pool": "threads", "concurrency": 5}, 10),
        ({"worker_disable_prefetch": True}, {"prefetch_multiplier": 4}, 1),
        ({}, {"disable_prefetch": True, "pool": "threads", "concurrency": 5}, 5),
    ],
)
def test_prefetch_is_a_bound_where_asked_for(
    settings: dict[str, Any], given: dict[str, Any], limit: int | None
) -> None:
    assert resolved(settings, **given).prefetch_limit == limit


@pytest.mark.parametrize(
    ("given", "queues"),
    [
        ({}, ("a", "b")),
        ({"queues": ("b",)}, ("b",)),
        ({"queues": ("b", "new")}, ("b", "new")),
        ({"exclude_queues": ("b",)}, ("a",)),
    ],
)
def test_queues(given: dict[str, Any], queues: tuple[str, ...]) -> None:
    assert resolved({"task_queues": ["a", "b"]}, **given).queues == queues


def test_no_queue_left() -> None:
    with pytest.raises(ImproperlyConfigured, match="no queue is left"):
        resolved(exclude_queues=("celery",))


def test_an_unknown_queue_where_none_may_be_made() -> None:
    with pytest.raises(QueueNotFound):
        resolved({"task_queues": ["a"], "task_create_missing_queues": False}, queues=("b",))


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("prefork", "prefork"),
        ("processes", "prefork"),
        ("threads", "threads"),
        ("solo", "solo"),
        ("celery.concurrency.thread:TaskPool", "threads"),
        ("celery.concurrency.prefork:TaskPool", "prefork"),
    ],
)
def test_names_of_pools(name: str, pool: str) -> None:
    assert pool_name(name) == pool


@pytest.mark.parametrize("name", ["gevent", "eventlet", "celery.concurrency.gevent:TaskPool"])
def test_greenlets_name_the_alternatives(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"-P threads .* `async def`"):
        pool_name(name)


def test_solo_runs_one() -> None:
    assert resolved(pool="solo", concurrency=8).concurrency == 1


def test_a_node_of_one_process_replaces_no_children(caplog: pytest.LogCaptureFixture) -> None:
    options = resolved(pool="solo", max_tasks_per_child=3)
    assert (options.max_tasks_per_child, options.max_memory_per_child) == (None, None)
    assert "do nothing with -P solo" in caplog.text
    assert resolved(pool="threads", max_tasks_per_child=3).max_tasks_per_child == 3


def test_autoscale_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    options = resolved({"worker_autoscale_keepalive": 5}, autoscale=(8, 2), concurrency=3)
    assert (options.concurrency, options.autoscale, options.autoscale_keepalive) == (2, (8, 2), 5.0)
    assert "-c is not used" in caplog.text


def test_a_child_has_a_minute_to_come_up_unless_told_otherwise() -> None:
    assert resolved().proc_alive == 60.0
    assert resolved({"worker_proc_alive_timeout": None}).proc_alive == 0.0


def test_spawn_is_not_ignored() -> None:
    with pytest.raises(ImproperlyConfigured, match="spawn"):
        resolved({"worker_pool_start_method": "spawn"})
