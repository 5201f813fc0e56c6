"""A broker that is not there: callers are told within five seconds, workers wait for it."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from celeriac.exceptions import OperationalError
from tests.faults.fleet import Fleet
from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, free_port, wait_until

SECRET = "s3cret-p4ss"


def _fails(place: Place, *words: str) -> float:
    began = time.monotonic()
    with pytest.raises(OperationalError) as caught:
        place.send("work", 1, 1)
    took = time.monotonic() - began
    text = str(caught.value)
    assert SECRET not in text
    assert SECRET not in repr(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return took


@scenario(
    "broker",
    fault="`delay()` finds no broker: refused, silent, half-open, wrong password",
    promise="`OperationalError` within 5 s",
)
def test_delay_fails_in_time(redis_server: RedisServer, tmp_path: Path) -> None:
    port = free_port()

    def place(url: str) -> Place:
        return Place(url, tmp_path)

    with (
        Proxy(HOST, redis_server.start().port) as hole,
        Proxy(HOST, redis_server.port) as proxy,
        RedisServer(password="another") as server,
        RedisServer() as paused,
        ThreadPoolExecutor(8) as pool,
    ):
        hole.blackhole()
        known = place(redis_server.url(port=proxy.port))
        known.send("work", 1, 1)
        proxy.half_open()
        paused.pause()
        refused = f"{HOST}:{port}/0"
        wrong = f"redis://:{SECRET}@{HOST}:{server.port}/0"
        cases: dict[str, tuple[Place, tuple[str, ...]]] = {
            "refused": (place(f"redis://:{SECRET}@{refused}"), (f"redis://:********@{refused}", "refused")),
            "blackhole": (
                place(f"redis://user:{SECRET}@{HOST}:{hole.port}/0"),
                (f"redis://user:********@{HOST}:{hole.port}/0",),
            ),
            "half_open": (known, (f"{HOST}:{proxy.port}",)),
            "wrong_password": (place(wrong), (f"redis://:********@{HOST}:{server.port}/0", "password")),
            "paused": (place(paused.url()), (f"{HOST}:{paused.port}",)),
            "no_host": (
                place(f"redis://:{SECRET}@nowhere.invalid:6379/0"),
                ("redis://:********@nowhere.invalid:6379/0",),
            ),
            "no_folder": (place(f"sqlite:///{tmp_path}/missing/celeriac.db"), (f"{tmp_path}/missing",)),
        }
        waiting = {name: pool.submit(_fails, there, *words) for name, (there, words) in cases.items()}
        times = {name: each.result(30) for name, each in waiting.items()}
    report(sent=0, lost=0, **times)
    assert all(took < 10.0 for took in times.values()), times


@scenario(
    "broker",
    fault="the broker is not there when a worker starts",
    promise="the worker waits and says so, the first task is done within a second",
)
def test_a_worker_waits_for_its_broker(tmp_path: Path) -> None:
    port = free_port()
    server = RedisServer(password=SECRET)
    server.port = port
    place = Place(server.url(), tmp_path, server)
    try:
        with place.fleet() as fleet:
            node = fleet.start("-c", "1", wait=False)
            line = node.logged("next try in")
            assert f"redis://:********@{HOST}:{port}/0" in line
            wait_until(lambda: len(node.lines("next try in")) >= 4)
            _check_backoff(fleet)
            assert not node.has_logged(" ready.")
            server.start()
            began = time.monotonic()
            task = place.send("work", 5, 1)
            place.wait_state(task, "SUCCESS")
            took = time.monotonic() - began
            report(sent=1, lost=0, again=0, recovery=took)
            assert took < 10.0
            node.logged(" ready.")
            assert SECRET not in node.text()
            assert node.stop() == 0
    finally:
        server.close()


def _check_backoff(fleet: Fleet) -> None:
    told = re.findall(r"/([^/\]]+)\].*next try in ([0-9.]+) s", fleet.nodes[0].text())
    assert len({process for process, _ in told}) == 1, "one process tells for all"
    pauses = [float(pause) for _, pause in told]
    assert pauses[0] < 0.2
    assert max(pauses) <= 1.0
    assert all("Traceback" not in line for line in fleet.nodes[0].text().splitlines())


def test_a_worker_that_never_found_its_broker_can_be_stopped(tmp_path: Path) -> None:
    place = Place(f"redis://:{SECRET}@{HOST}:{free_port()}/0", tmp_path)
    with place.fleet() as fleet:
        node = fleet.start("-c", "2", wait=False)
        node.logged("next try in")
        began = time.monotonic()
        code = node.stop(10.0)
        report(took=time.monotonic() - began)
        assert code == 0
        assert SECRET not in node.text()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_without_retries_at_the_start_it_exits_with_3(tmp_path: Path, pool: str) -> None:
    port = free_port()
    place = Place(f"redis://:{SECRET}@{HOST}:{port}/0", tmp_path)
    with place.fleet(broker_connection_retry_on_startup=False) as fleet:
        node = fleet.start("-P", pool, wait=False)
        assert node.exit_code(20.0) == 3, node.log()
        assert f"redis://:********@{HOST}:{port}/0" in node.text()
        assert SECRET not in node.text()
        assert "Traceback" not in node.text()


@scenario(
    "broker",
    fault="the broker is restarted while the worker is idle",
    promise="the first task is done within a second",
)
def test_the_broker_goes_away_while_the_worker_is_idle(make_redis: Any, tmp_path: Path) -> None:
    with make_redis() as server:
        place = Place(server.url(), tmp_path, server)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            place.wait_state(place.send("work", 1, 1), "SUCCESS")
            server.stop()
            line = node.logged("Cannot reach the broker, next try in")
            assert str(server.port) in line
            wait_until(lambda: len(node.lines("Cannot reach the broker, next try in")) >= 4)
            lines = node.lines("Cannot reach the broker, next try in")
            assert len({line.partition("]")[0].rpartition("/")[2] for line in lines}) == 1, "one process tells for all"
            server.start()
            began = time.monotonic()
            place.wait_state(place.send("work", 2, 1), "SUCCESS")
            took = time.monotonic() - began
            report(sent=1, lost=0, again=0, recovery=took)
            assert took < 10.0
            node.logged("is back")
            assert sorted(node.below()) == below
            assert node.stop() == 0
