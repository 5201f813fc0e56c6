"""``celeriac broker test``: the suite on servers in use, whose other contents stay as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac.brokers import rabbitmq
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message
from tests.servers import PostgresServer, RabbitServer, RedisCluster, RedisServer, wait_until

_CELERIAC = "import sys; from celeriac.cli import main; sys.exit(main())"
#: The memory broker hands out the newest first.
_BROKEN = """
from celeriac.brokers.memory.queues import Queues
take = Queues.take
Queues.take = lambda self, *args, **options: take(self, *args, **options)[::-1]
"""


def run(folder: Path, *arguments: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + _CELERIAC, "broker", "test", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def groups(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["name"]: each for each in found}


def test_what_holds_is_told_by_groups(tmp_path: Path) -> None:
    done = run(tmp_path, "memory://", "--only", "order", "--only", "schedule")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith("Testing memory://: makes memory://celeriac-test-")
    assert [line.split() for line in lines[:2]] == [["order", "13", "hold"], ["schedule", "17", "hold"]]
    assert lines[-1] == "All 30 sentences hold."


def test_what_breaks_is_told_with_its_sentence(tmp_path: Path) -> None:
    done = run(tmp_path, "memory://", "--only", "order", before=_BROKEN)
    assert done.returncode == 1, done.stderr
    assert "BROKEN" in done.stdout
    assert "  test_oldest_first\n    claim: oldest first" in done.stdout
    assert "assert ['" in done.stdout, "what was expected, and what came"
    told = groups(run(tmp_path, "memory://", "--only", "order", "--json", before=_BROKEN))["order"]
    assert told["broken"]
    assert set(told["broken"][0]) == {"test", "sentence", "got"}


def test_a_redis_in_use_keeps_what_it_has(tmp_path: Path, redis_server: RedisServer, redis_url: str) -> None:
    mine = {b"celery": b"list", b"mine:unacked": b"hash", b"celeriac-testing": b"string"}
    redis_server.command("LPUSH", "celery", "a task")
    redis_server.command("HSET", "mine:unacked", "token", "a delivery")
    redis_server.command("SET", "celeriac-testing", "x")
    done = run(tmp_path, f"{redis_url}?global_keyprefix=mine:", "--only", "order", "--only", "ledger", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert groups(done)["ledger"]["held"] > 20
    assert {key: redis_server.command("TYPE", key) for key in redis_server.command("KEYS", "*")} == mine


@pytest.mark.extended
def test_a_cluster_in_use_keeps_what_it_has(tmp_path: Path, redis_cluster: RedisCluster) -> None:
    mine = b"mine:{celery}:celery"
    for node in redis_cluster.nodes:
        wait_until(lambda node=node: b"cluster_state:ok" in node.command("CLUSTER", "INFO"), 60)  # type: ignore[misc]
    redis_cluster.node_of("celery", "mine:").command("LPUSH", mine, "a task")
    before = _keys(redis_cluster)
    assert mine in before
    done = run(tmp_path, f"{redis_cluster.url()}?global_keyprefix=mine:", "--only", "order", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert groups(done)["order"]["held"] > 10
    assert groups(done)["order"]["broken"] == []
    assert _keys(redis_cluster) == before
    redis_cluster.node_of("celery", "mine:").command("DEL", mine)


def _keys(cluster: RedisCluster) -> set[bytes]:
    return {key for node in cluster.nodes for key in node.command("KEYS", "*")}


def test_a_database_in_use_keeps_what_it_has(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    schemas = "SELECT nspname FROM pg_namespace ORDER BY 1"
    before = postgres_server.execute(schemas)
    done = run(tmp_path, postgres_url, "--only", "order", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert groups(done)["order"]["broken"] == []
    assert postgres_server.execute(schemas) == before


def test_a_rabbitmq_in_use_keeps_what_it_has(
    tmp_path: Path, rabbitmq_server: RabbitServer, rabbitmq_vhost: str
) -> None:
    url = rabbitmq_server.url(rabbitmq_vhost)
    refused = run(tmp_path, url, "--only", "order")
    assert refused.returncode == 2
    assert "rabbitmqctl add_vhost celeriac-test && rabbitmqctl set_permissions -p celeriac-test guest" in refused.stderr
    _publish(url, "q", "celeriac.dead")
    before = rabbitmq_server.queues(rabbitmq_vhost)
    assert before["q"] == before["celeriac.dead"] == (1, 0)
    own = rabbitmq_server.new_vhost("celeriac-test")
    done = run(tmp_path, url, "--only", "order", "--only", "schedule", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert groups(done)["schedule"]["held"] > 10
    assert groups(done)["order"]["broken"] == groups(done)["schedule"]["broken"] == []
    assert rabbitmq_server.queues(rabbitmq_vhost) == before
    wait_until(lambda: rabbitmq_server.queues(own) == {})  # some go with their connections
    names = f'[Name || {{resource, <<"{own}">>, exchange, Name}} <- rabbit_exchange:list_names()]'
    others = f'[Name || Name <- {names}, Name =/= <<>>, binary:longest_common_prefix([Name, <<"amq.">>]) < 4]'
    assert rabbitmq_server.erl(others) == "[]"
    rabbitmq_server.drop_vhost(own)


def _publish(url: str, *queues: str) -> None:
    publisher = rabbitmq.publisher(url, AdapterOptions())
    publisher.publish([message(queue=queue) for queue in queues], timeout=60)
    publisher.close()


def test_files_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "app.db").write_bytes(b"")
    done = run(tmp_path, f"sqlite:///{tmp_path}/app.db", "--only", "order", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("redis://user:s3cret@127.0.0.1:1/0",), "cannot reach Redis"),
        (("memory://", "--ledger", "memory://other"), "keeps its own ledger: test it without --ledger"),
        (("unheard://of",), "unknown scheme"),
        ((), "no app"),
        (("memory://", "--only", "ordre"), "no group 'ordre' of sentences: there are"),
    ],
)
def test_what_cannot_be_tested(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "s3cret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_pytest(tmp_path: Path) -> None:
    done = run(tmp_path, "memory://", before="import sys; sys.modules['pytest'] = None\n")
    assert (done.returncode, done.stderr) == (
        2,
        "Error: celeriac broker test needs pytest: pip install 'celeriac[test]'\n",
    )
