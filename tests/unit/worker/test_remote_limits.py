"""Who may ask a node for what, and orders about limits and the number of children."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.client.requests import signed
from celeriac.codec.signing import control_signer_of
from celeriac.worker.remote import listener_of
from tests.unit.worker.test_remote import PONG, Bench, bench

__all__ = ["bench"]

# ---------------------------------------------------------------- who may


KEY = "a key of sixteen bytes"


def test_with_a_key_only_signed_commands_are_obeyed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.agent.app.conf.control_key = KEY
    signer = control_signer_of(bench.agent.app.conf)
    assert signer is not None
    bench.remote = listener_of(bench.agent)
    origin = {"user": "eve\n[CRITICAL]", "host": "h", "pid": {"x": 1}}
    assert bench.ask("ping") is None
    assert bench.ask("shutdown", {}, origin=origin) is None
    assert bench.ask("hello", {"from_node": "x", "revoked": ["id"]}) is None
    assert not bench.stopped
    assert not list(bench.agent.enforcer.book.revoked)
    assert "is refused: it is not signed" in caplog.text
    assert "\n[CRITICAL]" not in caplog.text
    request = signed({"method": "shutdown", "arguments": {}}, signer, reply=False)
    bench.handle(request, {})
    bench.handle(request, {})
    assert bench.stopped == [True]


def test_a_flood_of_unsigned_ones_writes_few_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.agent.app.conf.control_key = KEY
    bench.remote = listener_of(bench.agent)
    for _ in range(500):
        bench.ask("x" * 10_000)
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert 1 <= len(lines) < 20
    assert max(map(len, lines)) < 400


def test_what_is_logged_of_a_command(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.agent.options = replace(bench.agent.options, redact_names=("iban",))
    with caplog.at_level("INFO", "celery.worker.control"):
        bench.ask("revoke", {"task_id": "i", "iban": "DE1", "cookie": "c", "more": [{"Authorization": "Bearer x"}]})
    assert "'task_id': 'i', 'iban': '***', 'cookie': '***', 'more': [{'Authorization': '***'}]" in caplog.text


def test_inspection_only(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.agent.options = replace(bench.agent.options, remote_control="inspect")
    bench.remote = listener_of(bench.agent)
    assert bench.ask("ping") == PONG
    for method in ("shutdown", "revoke", "terminate", "add_consumer", "enable_events", "heartbeat"):
        answer = bench.ask(method, {"task_id": "i", "queue": "q"})
        assert "worker_enable_remote_control is 'inspect'" in answer["error"]
    bench.ask("hello", {"from_node": "x", "revoked": ["id"]})
    assert not list(bench.agent.enforcer.book.revoked)
    assert not bench.stopped
    assert bench.ask("ping", pattern="(w+)+x", matcher="pcre") is None
    assert bench.ask("ping", pattern=".*", matcher="pcre") is None
    assert bench.ask("ping", pattern="w*", matcher="glob") == PONG


def test_what_changes_something_is_logged_with_its_origin(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    origin = {"user": "ann", "host": "web-1\x1b[31m", "pid": 17}
    bench.ask("add_consumer", {"queue": "q\n[CRITICAL]", "password": "hunter2"}, origin=origin)
    line = next(record.getMessage() for record in caplog.records if "add_consumer" in record.getMessage())
    assert "ann@web-1\\x1b[31m (pid 17)" in line
    assert "\n" not in line
    assert "hunter2" not in line
    bench.ask("shutdown", {})
    assert "shutdown from somebody unknown" in caplog.text


# -- limits and the pool -------------------------------------------------------------------------------------------


def test_time_limits_reach_all_children_also_later_ones(bench: Bench, app: Celery) -> None:
    app.task(name="slow")(lambda: None)
    answer = bench.ask("time_limit", {"task_name": "slow", "soft": 2, "hard": 3.5})
    assert answer == {"ok": "time limits set successfully"}
    assert bench.link.asked == [("time_limit", {"limits": {"slow": (2, 3.5)}})]
    assert bench.link.kept["time_limit"] == {"limits": {"slow": (2, 3.5)}}
    bench.ask("time_limit", {"task_name": "slow", "soft": None, "hard": 9})
    assert bench.link.kept["time_limit"] == {"limits": {"slow": (None, 9)}}
    assert bench.agent.runner.entry("slow").options.time_limit == 9  # type: ignore[union-attr]


def test_rates_and_time_limits_stand_side_by_side(bench: Bench, app: Celery) -> None:
    """Whichever was set first, by remote control or by the orders that a later child is told."""
    app.task(name="slow", time_limit=7)(lambda: None)
    bench.ask("time_limit", {"task_name": "slow", "soft": 2, "hard": 3.5})
    bench.ask("rate_limit", {"task_name": "slow", "rate_limit": "10/s"})
    options = bench.agent.runner.entry("slow").options  # type: ignore[union-attr]
    assert (options.soft_time_limit, options.time_limit, options.rate) == (2, 3.5, 10.0)
    bench.ask("time_limit", {"task_name": "slow", "hard": 9})
    options = bench.agent.runner.entry("slow").options  # type: ignore[union-attr]
    assert (options.soft_time_limit, options.time_limit, options.rate) == (None, 9, 10.0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"task_name": "none", "hard": 1}, "unknown task"),
        ({"task_name": "slow", "hard": -1}, "a hard limit is a number of seconds above 0, not -1"),
        ({"task_name": "slow", "soft": "long"}, "a soft limit is a number of seconds above 0, not 'long'"),
    ],
)
def test_limits_that_cannot_be(bench: Bench, app: Celery, arguments: dict[str, Any], error: str) -> None:
    app.task(name="slow")(lambda: None)
    assert error in bench.ask("time_limit", arguments)["error"]
    assert bench.link.kept == {}


@pytest.mark.parametrize("command", ["pool_grow", "pool_shrink", "autoscale"])
def test_a_node_of_one_process_neither_grows_nor_shrinks(bench: Bench, command: str) -> None:
    arguments = {"max": 3, "min": 1} if command == "autoscale" else {"n": 1}
    assert "only -P prefork grows and shrinks" in bench.ask(command, arguments)["error"]


def test_a_node_that_cannot_work_answers_and_says_why(bench: Bench) -> None:
    bench.agent._backoff.failures = 2
    assert bench.ask("ping") == {"ok": "pong", "unready": "its agent cannot reach the broker"}
