"""``rpc://`` between real Celery and our own on one RabbitMQ: each side's sender with the other side's worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.project.fleet import Fleet
from tests.servers import RabbitServer, RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet(
    rabbitmq_server: RabbitServer,
    compat_redis: RedisServer,
    celery_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """``ours@host`` on the queue ``ours``, ``theirs@host`` on ``theirs``."""
    folder = tmp_path_factory.mktemp("rpc")
    url = rabbitmq_server.url(rabbitmq_server.new_vhost())
    with Fleet(compat_redis, folder, celery_python, db=8, broker_url=url, result_backend="rpc://") as fleet:
        workers = [fleet.theirs("theirs@host", "-c", "2", "-Q", "theirs"), fleet.ours("ours@host", "-Q", "ours")]
        for worker in workers:
            worker.ready()
        fleet.wait_for_answer("theirs@host")
        yield fleet


@pytest.fixture(params=["ours", "theirs"])
def way(request: pytest.FixtureRequest) -> str:
    side: str = request.param
    return side


CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], Any]] = {
    "plain": ("add", (1, 2), {}, 3),
    "unicode": ("add", ("a", "ü"), {}, "aü"),
    "countdown": ("add", (1, 2), {"countdown": 0.5}, 3),
    "retries": ("retry", (2,), {}, 2),
    "long id": ("add", (1, 2), {"task_id": "x" * 200}, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_a_result_comes_back(fleet: Fleet, way: str, case: str) -> None:
    name, args, options, expected = CASES[case]
    found = fleet.call(way, name, args, **options)
    assert (found.get("value"), found["state"]) == (expected, "SUCCESS"), f"{found}\n{fleet.logs()}"


def test_a_failure_comes_back(fleet: Fleet, way: str) -> None:
    found = fleet.call(way, "fail", (42,))
    assert found["error"] == ["builtins", "ValueError", ["bad input", 42]], f"{found}\n{fleet.logs()}"
    assert found["state"] == "FAILURE"
    assert "ValueError" in found["traceback"]


def test_many_results(fleet: Fleet, way: str) -> None:
    if way == "theirs":
        sent = [fleet.send("add", (number, 1), queue=way) for number in range(200)]
        values = [result.get(timeout=60) for result in sent]
    else:
        values = fleet.console.run(
            "[r.get(timeout=60) for r in [send('add', (number, 1), queue='ours') for number in range(200)]]"
        )
    assert values == list(range(1, 201))


def test_a_chain_over_both(fleet: Fleet) -> None:
    """Each step, on whichever side, answers the one who has sent the chain."""
    ours = fleet.app.tasks["compat.hop"]
    steps = [ours.s([]).set(queue="theirs"), ours.s().set(queue="ours"), ours.s().set(queue="theirs")]
    result = (steps[0] | steps[1] | steps[2]).apply_async()
    assert result.get(timeout=60) == ["theirs", "ours", "theirs"], fleet.logs()
    assert result.parent.get(timeout=60) == ["theirs", "ours"]
    theirs = fleet.console.run(
        """
        hop = app.tasks["compat.hop"]
        chained = hop.s([]).set(queue="ours") | hop.s().set(queue="theirs") | hop.s().set(queue="ours")
        chained.apply_async().get(timeout=60)
        """
    )
    assert theirs == ["ours", "theirs", "ours"], fleet.logs()


def test_a_step_that_never_runs_is_told(fleet: Fleet) -> None:
    """Celery's sender hears from our worker why the last step of its chain does not come."""
    found = fleet.console.run(
        """
        failing = app.tasks["compat.fail"].si(42).set(queue="ours") | app.tasks["compat.side"].si().set(queue="ours")
        outcome(failing.apply_async())
        """
    )
    assert found["error"] == ["builtins", "ValueError", ["bad input", 42]], f"{found}\n{fleet.logs()}"


def test_states_on_the_way(fleet: Fleet, way: str) -> None:
    if way == "ours":
        seen = fleet.console.run(
            """
            seen = []
            result = send("later", ("rpc",), queue="ours")
            def heard(meta):
                if meta["task_id"] == result.id:
                    seen.append(meta["status"])
                    # The next try waits for this: else its end might come before, and nothing behind it is heard.
                    (tasks.folder() / "rpc-again").touch()
            result.get(timeout=60, on_message=heard)
            seen
            """
        )
        assert seen == ["RETRY", "SUCCESS"], fleet.logs()
    else:
        result = fleet.send("retry", (1,), queue="theirs")
        states: list[str] = []
        assert result.get(timeout=60, on_message=lambda meta: states.append(meta["status"])) == 1
        assert states[-1] == "SUCCESS"
