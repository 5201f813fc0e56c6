"""The private servers do what fault tests rely on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hiredis
import pytest

from tests.servers import RedisServer, eventually, wait_until

ROOT = Path(__file__).parents[2]
MakeRedis = Callable[..., RedisServer]


@pytest.fixture(scope="module")
def durable(make_redis: MakeRedis) -> Iterator[RedisServer]:
    server = make_redis(appendonly=True)
    yield server
    server.close()


def test_wait_until_returns_the_answer_and_names_what_it_waited_for() -> None:
    answers = iter([0, "", 7])
    assert wait_until(lambda: next(answers)) == 7
    with pytest.raises(TimeoutError, match=r"not within 0 s: the moon is blue"):
        wait_until(lambda: False, 0, lambda: "the moon is blue")


async def answer_late() -> object:
    answers = iter([0, 0, "yes"])
    return await eventually(lambda: next(answers))


def test_eventually_is_the_same_for_coroutines() -> None:
    assert asyncio.run(answer_late()) == "yes"


def test_each_test_gets_an_empty_database(redis_server: RedisServer, redis_url: str) -> None:
    assert redis_url == f"redis://127.0.0.1:{redis_server.port}/0"
    assert redis_server.command("DBSIZE") == 0
    redis_server.command("SET", "left", "over", db=3)
    assert redis_server.command("GET", "left", db=3) == b"over"
    assert redis_server.url(3).endswith("/3")


def test_errors_are_raised_and_info_is_a_dict(redis_server: RedisServer, redis_url: str) -> None:
    with pytest.raises(hiredis.ReplyError, match="unknown command"):
        redis_server.command("NO-SUCH-COMMAND")
    assert int(redis_server.info()["connected_clients"]) >= 1


def test_data_survive_a_kill_with_appendonly(durable: RedisServer) -> None:
    durable.command("SET", "key", "value")
    port, pid = durable.port, durable.pid
    durable.kill()
    assert not durable.running
    with pytest.raises(ConnectionRefusedError):
        durable.command("PING")
    durable.start()
    assert (durable.port, durable.command("GET", "key")) == (port, b"value")
    assert durable.pid != pid
    durable.restart()
    assert durable.command("GET", "key") == b"value"


def test_data_are_gone_without_persistence(make_redis: MakeRedis) -> None:
    with make_redis() as server:
        server.command("SET", "key", "value")
        server.restart()
        assert server.command("EXISTS", "key") == 0


def test_a_paused_server_answers_nothing(durable: RedisServer) -> None:
    durable.pause()
    with pytest.raises(TimeoutError):
        durable.command("PING", timeout=0.05)
    durable.resume()
    assert durable.command("PING") == b"PONG"


def test_a_paused_server_can_be_stopped(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.pause()
    server.close()
    assert not server.running
    assert not server.directory.exists()


def test_a_full_server_refuses_writes(make_redis: MakeRedis) -> None:
    def fill(server: RedisServer) -> None:
        for number in range(100):
            server.command("SET", f"key-{number}", b"x" * 100_000)

    with make_redis(maxmemory="3mb") as server:
        with pytest.raises(hiredis.ReplyError, match="OOM"):
            fill(server)
        assert server.command("EXISTS", "key-0") == 1


def test_password_user_and_unix_socket(make_redis: MakeRedis) -> None:
    with make_redis(password="p@ss/word") as server:
        assert server.url(2) == f"redis://:p%40ss%2Fword@127.0.0.1:{server.port}/2"
        assert server.command("PING") == b"PONG"
    with make_redis(user="ann", password="secret", unixsocket=True) as server:
        assert server.command("ACL", "WHOAMI") == b"ann"
        assert server.url(1) == f"redis+socket://ann:secret@{server.unixsocket}?virtual_host=1"
        assert server.unixsocket is not None
        assert server.unixsocket.is_socket()


def test_tls_with_a_certificate_of_its_own(make_redis: MakeRedis) -> None:
    with make_redis(tls=True) as server:
        assert server.command("PING") == b"PONG"
        assert server.url().startswith(f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs=required&ssl_ca_certs=")


def test_a_bad_option_shows_what_the_server_said(make_redis: MakeRedis) -> None:
    with pytest.raises(ChildProcessError, match="redis-server ended at its start"):
        make_redis(config={"maxclients": "not a number"})


def test_the_server_dies_with_the_run(tmp_path: Path) -> None:
    code = "from tests.servers import RedisServer as R; print(R().start().pid, flush=True); input()"
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: not _alive(pid), 60, f"redis-server {pid} is gone")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
