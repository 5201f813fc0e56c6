"""The worker's Redis user behind Sentinel and in a cluster: what docs/how-to/redis.md adds is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac import Celery
from celeriac.contrib.testing.worker import start_worker
from tests.integration.test_redis_acl import LINES, denied
from tests.servers import HOST, RedisCluster, RedisSentinels, RedisServer

PREFIX = {"global_keyprefix": "proj:"}
WORKER = next(words[1:] for words in LINES if words[0] == "worker")


def allow(server: RedisServer, *more: str, keys: tuple[str, ...] = (), channels: tuple[str, ...] = ()) -> None:
    """The user of the page, with what a kind of server needs besides; ``keys`` and ``channels`` in place of its own."""
    words = [word.replace(">PASSWORD", ">worker-password") for word in WORKER]
    if keys:
        words = [word for word in words if not word.startswith(("~", "&"))]
    server.command("ACL", "SETUSER", "worker", *words, *keys, *channels, *more)
    server.command("ACL", "LOG", "RESET")


def use(app: Celery) -> None:
    app.task(name="proj.add")(lambda x, y: x + y)
    add: Any = app.tasks["proj.add"]
    with start_worker(app, perform_ping_check=False, task_events=True, without_heartbeat=False):
        assert [each.get(timeout=60) for each in [add.delay(n, n) for n in range(20)]] == [2 * n for n in range(20)]
        assert add.apply_async((1, 1), countdown=0.2, priority=6).get(timeout=60) == 2
        assert app.control.ping(timeout=60.0, limit=1)
        app.control.pause_queue("celery")
        app.control.resume_queue("celery")


def test_behind_sentinels(make_sentinels: Callable[..., RedisSentinels]) -> None:
    sentinels = make_sentinels(down_after=30_000)
    for server in sentinels.servers:
        allow(server, "+role", "+wait")
    for sentinel in sentinels.sentinels:
        sentinel.command("ACL", "SETUSER", "watcher", "on", ">pw", "-@all", "+sentinel|master", "+hello", "+ping")
    url = sentinels.url().replace("sentinel://", "sentinel://worker:worker-password@")
    options = {**PREFIX, "sentinel_kwargs": {"username": "watcher", "password": "pw"}, "wait_replicas": 1}
    app = Celery(
        "proj",
        broker=url,
        backend=url,
        broker_transport_options=options,
        result_backend_transport_options=options,
        set_as_current=False,
    )
    use(app)
    assert [each for server in sentinels.servers for each in denied(server)] == []


def test_in_a_cluster(make_cluster: Callable[..., RedisCluster]) -> None:
    with make_cluster() as nodes:
        tags = ("proj:{celery}:*", "proj:{r*}:*", "proj:{celeriac}:*")
        for node in nodes.nodes:
            allow(
                node,
                "+cluster|slots",
                "+role",
                keys=("resetkeys", *(f"~{tag}" for tag in tags)),
                channels=(
                    "resetchannels",
                    "&proj:{r*}:*",
                    "&proj:{celeriac}:*",
                    "&proj:{celeriac}:/0.celery.pidbox/*",
                    "&proj:{celeriac}:/0.celeryev/*",
                ),
            )
        hosts = nodes.url().partition("://")[2]
        url = f"redis+cluster://worker:worker-password@{hosts}"
        app = Celery(
            "proj",
            broker=url,
            backend=url,
            broker_transport_options=PREFIX,
            result_backend_transport_options=PREFIX,
            set_as_current=False,
        )
        use(app)
        assert [each for node in nodes.nodes for each in denied(node)] == []
        assert HOST in url
