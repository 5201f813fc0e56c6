"""Requests off the bus: only ours, only in time, and whatever they hold costs at most themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import Celery
from celeriac.codec.json import dumps
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.rules import Rule, decode_order
from celeriac.worker import enforcer
from celeriac.worker.agent import Agent
from celeriac.worker.commands import Panel, control_command, inspect_command
from celeriac.worker.options import NodeOptions
from celeriac.worker.remote import listener_of, remote_services
from celeriac.worker.rules import from_wire
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import FakeBroker, until

Make = Callable[..., Runner]


class FakeBus(FakeBroker):
    """A broker that is a bus, too; it encodes what it sends, as all do."""

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        self.faults.meet("emit")
        dumps(payload), dumps(dict(headers))
        self.log.append(("emit", (routing_key, payload)))

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        self.faults.meet("reply")
        dumps(payload), dumps(dict(headers))
        self.log.append(("reply", (exchange, routing_key, payload, dict(headers))))

    async def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        self.log.append(("listen", exchange))
        self.faults.meet("listen")
        yield {"method": "ping", "reply_to": REPLY_TO}, {}


class FakeLink:
    """Answers by ``answers[method]``; keeps what was asked, and the orders for later children."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.kept: dict[str, Any] = {}
        self.answers: dict[str, list[Any]] = {}

    async def ask(self, method: str, arguments: Mapping[str, Any], *, timeout: float = 0.8) -> list[Any]:
        self.asked.append((method, arguments))
        return self.answers.get(method, [])

    def keep(self, method: str, arguments: Mapping[str, Any]) -> None:
        self.kept[method] = arguments


REPLY_TO = {"exchange": "reply.celery.pidbox", "routing_key": "oid-1"}


class Bench:
    def __init__(self, app: Celery, runner: Runner) -> None:
        self.bus, self.link, self.stopped = FakeBus(), FakeLink(), list[bool]()
        self.agent = Agent(
            app,
            NodeOptions(hostname="w@h", queues=("celery",)),
            runner,
            broker=self.bus,  # type: ignore[arg-type]
            store=None,
            link=self.link,
            stop_node=lambda: self.stopped.append(True),
        )
        self.remote = listener_of(self.agent)

    def ask(self, method: Any, arguments: Any = None, *, headers: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """What the node answers; None for no answer."""
        request = {"method": method, "arguments": arguments, "ticket": "t1", "reply_to": REPLY_TO, **more}
        return self.handle(request, headers or {})

    def handle(self, request: Any, headers: Mapping[str, Any]) -> Any:
        before = len(self.bus.log)
        asyncio.run(self.remote.handle(request, headers))
        replies = [what for name, what in self.bus.log[before:] if name == "reply"]
        assert len(replies) <= 1
        if not replies:
            return None
        exchange, key, payload, sent = replies[0]
        assert (exchange, key, sent["ticket"]) == ("reply.celery.pidbox", "oid-1", request.get("ticket"))
        assert list(payload) == ["w@h"]
        return payload["w@h"]


@pytest.fixture
def bench(app: Celery, runner: Runner) -> Bench:
    return Bench(app, runner)


@pytest.fixture
def panel() -> Iterator[None]:
    """Commands of a test end with it."""
    data, writes = dict(Panel.data), set(Panel.writes)
    yield
    Panel.data.clear()
    Panel.data.update(data)
    Panel.writes.clear()
    Panel.writes.update(writes)


PONG = {"ok": "pong"}


def test_ping(bench: Bench) -> None:
    assert bench.ask("ping") == PONG
    assert bench.ask("ping", {}, destination=[], pattern=None) == PONG


@pytest.mark.parametrize(
    ("fields", "mine"),
    [
        ({"destination": ["w@h"]}, True),
        ({"destination": ["x@h", "w@h"]}, True),
        ({"destination": ["x@h"]}, False),
        ({"destination": "w@h"}, False),
        ({"destination": 5}, False),
        ({"destination": [["w@h"], {}, None]}, False),
        ({"pattern": "w@*", "matcher": "glob"}, True),
        ({"pattern": "w@*"}, True),
        ({"pattern": "x@*", "matcher": "glob"}, False),
        ({"pattern": "W@H"}, False),
        ({"pattern": "[", "matcher": "glob"}, False),
        ({"pattern": r"\w@h$", "matcher": "pcre"}, True),
        ({"pattern": r"x|y", "matcher": "pcre"}, False),
        ({"pattern": "(", "matcher": "pcre"}, False),
        ({"pattern": "a{99999999999999}", "matcher": "pcre"}, False),
        ({"pattern": "(" * 5_000 + ")" * 5_000, "matcher": "pcre"}, False),
        ({"pattern": "?" + "*" * 999}, True),
        ({"pattern": "?" + "*" * 1_000}, False),
        ({"pattern": "x@*", "destination": ["w@h"]}, False),
    ],
)
def test_for_whom(bench: Bench, fields: dict[str, Any], mine: bool) -> None:
    assert bench.ask("ping", **fields) == (PONG if mine else None)


@pytest.mark.parametrize(
    ("expires", "answer"),
    [(lambda: time.time() + 60, PONG), (lambda: time.time() - 60, None)],
)
def test_too_late(bench: Bench, expires: Callable[[], float], answer: Any) -> None:
    # A callable: the clock is read by the test, not minutes earlier when it is collected.
    assert bench.ask("ping", headers={"expires": expires()}) == answer


@pytest.mark.parametrize(("expires", "answer"), [(None, PONG), ("soon", PONG), (0, None)])
def test_odd_expiries(bench: Bench, expires: Any, answer: Any) -> None:
    assert bench.ask("ping", headers={"expires": expires}) == answer


@pytest.mark.parametrize(
    "request_", [None, 5, "ping", [], ["ping"], {}, {"method": None}, {"method": 5}, {"method": ["ping"]}]
)
def test_what_is_no_request(bench: Bench, request_: Any) -> None:
    assert bench.handle(request_, {}) is None if isinstance(request_, dict) else True
    asyncio.run(bench.remote.handle(request_, {}))
    assert bench.bus.log == []


@pytest.mark.parametrize("arguments", [5, "x", [1], None, {}])
def test_arguments_that_are_no_mapping_are_none(bench: Bench, arguments: Any) -> None:
    assert bench.ask("ping", arguments) == PONG


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("revoke", {"task_id": 5}),
        ("revoke", {"task_id": None}),
        ("revoke", {"task_id": "x", "terminate": True, "signal": "NONSENSE"}),
        ("revoke", {"task_id": "x", "terminate": True, "signal": {"a": 1}}),
        ("ping", {"state": 1}),
        ("add_consumer", {}),
        ("add_consumer", {"queue": 5}),
        ("add_consumer", {"queue": ""}),
        ("add_consumer", {"queue": ["a"]}),
        ("query_task", {"ids": [[1]]}),
        ("query_task", {"ids": 5}),
        ("registered", {"taskinfoitems": 5}),
        ("registered", {"taskinfoitems": [None]}),
    ],
)
def test_arguments_that_do_not_fit(bench: Bench, method: str, arguments: Any) -> None:
    bench.agent.app.task(name="some.task")(lambda: None)
    assert list(bench.ask(method, arguments)) == ["error"]
    assert bench.agent.queues == ["celery"]
    assert bench.ask("ping") == PONG


def test_an_unknown_method_answers_as_celery_does(bench: Bench) -> None:
    assert bench.ask("nonsense") == {"error": "KeyError('nonsense')"}


# -- where the answer goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply_to",
    [
        None,
        5,
        {},
        {"exchange": "celery", "routing_key": "oid"},
        {"exchange": "", "routing_key": "celery"},
        {"exchange": "reply.celery.pidbox"},
        {"exchange": "reply.celery.pidbox", "routing_key": 5},
        {"exchange": "reply.celery.pidbox", "routing_key": ""},
        {"exchange": "reply.celery.pidbox", "routing_key": "a b"},
        {"exchange": "reply.celery.pidbox", "routing_key": "a\x06\x16b"},
        {"exchange": "reply.celery.pidbox", "routing_key": "oid\n"},
        {"exchange": "reply.celery.pidbox", "routing_key": "x" * 129},
    ],
)
def test_unusual_addresses_are_not_answered(bench: Bench, reply_to: Any) -> None:
    asyncio.run(bench.remote.handle({"method": "ping", "reply_to": reply_to}, {}))
    assert bench.bus.log == []


def test_an_outage_costs_the_answer(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.bus.faults.away("reply")
    assert bench.ask("ping") is None
    assert "Cannot answer a remote command: away" in caplog.text


# -- commands of users ---------------------------------------------------------------------------------------------


def test_commands_of_users(bench: Bench, panel: None) -> None:
    @control_command
    def plain(state: Any, x: int, **kwargs: Any) -> dict[str, Any]:
        return {"x": x, "app": state.app.main, "hostname": state.options.hostname}

    @inspect_command(name="named", alias="other", args=[("x", int)], signature="[X]")
    async def coroutine(state: Any, **kwargs: Any) -> str:
        await asyncio.sleep(0)
        return "later"

    assert bench.ask("plain", {"x": 5}) == {"x": 5, "app": "proj", "hostname": "w@h"}
    assert bench.ask("named") == bench.ask("other") == "later"
    assert bench.ask("coroutine") == {"error": "KeyError('coroutine')"}
    assert ("plain" in Panel.writes, "named" in Panel.writes) == (True, False)


@pytest.mark.parametrize("how", ["raises", "answers oddly", "answers nothing"])
def test_commands_that_fail(bench: Bench, panel: None, how: str) -> None:
    @inspect_command()
    def odd(state: Any) -> Any:
        if how == "raises":
            raise ZeroDivisionError
        return object() if how == "answers oddly" else None

    answer = bench.ask("odd")
    if how == "answers nothing":
        assert answer is None
    else:
        assert list(answer) == ["error"]


def test_guests_tell_of_themselves_in_the_stats(bench: Bench) -> None:
    async def run() -> None:
        pass

    bench.agent.guests = (SimpleNamespace(run=run, stats=lambda: {"beat": {"entries": 3}}),)
    assert bench.ask("stats")["beat"] == {"entries": 3}
    assert run in bench.agent.services()


# -- the listener --------------------------------------------------------------------------------------------------


def test_the_listener_comes_back_after_outages(bench: Bench) -> None:
    bench.bus.faults.plan("listen", OperationalError("away"), None, OperationalError("away"))

    async def main() -> None:
        running = asyncio.create_task(bench.remote.run())
        await until(lambda: sum(name == "reply" for name, _ in bench.bus.log) >= 2)
        assert not running.done()
        running.cancel()

    asyncio.run(main())


def test_no_listener_without_a_bus_or_when_switched_off(bench: Bench, app: Celery, runner: Runner) -> None:
    assert len(remote_services(bench.agent)) == 1
    off = SimpleNamespace(broker=bench.bus, options=NodeOptions(hostname="w@h", queues=(), remote_control=False))
    mute = SimpleNamespace(broker=FakeBroker(), options=bench.agent.options)
    assert remote_services(off) == remote_services(mute) == []  # type: ignore[arg-type]


# -- what commands do ----------------------------------------------------------------------------------------------


def orders(bench: Bench) -> list[Rule]:
    """What the children were told, the kept order for later ones included."""
    assert {method for method, _ in bench.link.asked} <= {"obey"}
    told = [rule for _, arguments in bench.link.asked for rule in from_wire(arguments["rules"])]
    assert from_wire(bench.link.kept["obey"]["rules"]) == told
    return told


def test_revoke_where_the_broker_keeps_no_rules(bench: Bench) -> None:
    assert bench.ask("revoke", {"task_id": "a"}) == {"ok": "tasks {'a'} flagged as revoked"}
    assert bench.ask("revoke", {"task_id": ["b", 5]})["ok"].startswith("tasks {")
    assert set(bench.ask("revoked")) == {"a", "b", "5"}
    assert {rule.key for rule in orders(bench)} == {"revoke:a", "revoke:b", "revoke:5"}
    assert not any(decode_order(rule.value or b"").terminate for rule in orders(bench))


def test_revoke_by_stamps(bench: Bench) -> None:
    asked = {"headers": {"a": "1", "b": ["2", 3]}, "by": "me", "reason": "why"}
    assert bench.ask("revoke_by_stamped_headers", asked)["ok"].startswith("headers ")
    assert [rule.key for rule in orders(bench)] == ["stamp:a=1", "stamp:b=2", "stamp:b=3"]
    assert decode_order(orders(bench)[0].value or b"").by == "me"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append((pid, number)))
    return kills


def running(token: str, signal: str = "SIGTERM", pid: int = 4_000_000) -> dict[str, Any]:
    """A task that its child cannot end."""
    return {"token": token, "pid": pid, "signal": signal, "by": "", "why": ""}


@pytest.mark.parametrize(
    ("name", "recorded", "sent"),
    [
        ("SIGTERM", signal.SIGTERM, signal.SIGKILL),
        ("KILL", signal.SIGKILL, signal.SIGKILL),
        ("sigusr2", signal.SIGUSR2, signal.SIGUSR2),
        ("12", 12, 12),
        ("rubbish", signal.SIGTERM, signal.SIGKILL),
    ],
)
def test_terminate(bench: Bench, killed: list[tuple[int, int]], name: Any, recorded: int, sent: int) -> None:
    bench.link.answers = {"obey": [[running("o:1", name)], []]}
    bench.ask("revoke", {"task_id": "a", "terminate": True})
    bench.ask("revoke", {"task_id": "a", "terminate": True})
    assert killed == [(4_000_000, sent)], "once"
    assert bench.agent.enforcer.terminating == {"o:1": o.Revoked("terminated", recorded)}


def test_the_signal_is_in_the_order(bench: Bench, killed: list[tuple[int, int]]) -> None:
    bench.ask("terminate", {"task_id": "a", "signal": "USR1"})
    (rule,) = orders(bench)
    assert decode_order(rule.value or b"").signal == "USR1"
    assert decode_order(rule.value or b"").terminate


def test_an_agent_does_not_kill_itself(bench: Bench, killed: list[tuple[int, int]]) -> None:
    bench.link.answers = {"obey": [[running("o:1", pid=os.getpid())]]}
    bench.ask("terminate", {"task_id": "a"})
    assert killed == []


def test_ends_that_never_come_are_forgotten(
    bench: Bench, killed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcer, "TERMINATING_MAX", 2)
    for number in range(4):
        bench.link.answers = {"obey": [[running(f"o:{number}")]]}
        bench.ask("revoke", {"task_id": "a", "terminate": True})
    assert list(bench.agent.enforcer.terminating) == ["o:2", "o:3"]


def test_events_are_switched_everywhere(bench: Bench) -> None:
    assert bench.ask("enable_events") == {"ok": "task events enabled"}
    assert bench.ask("enable_events") == {"ok": "task events already enabled"}
    assert bench.link.kept["events"] == {"on": True}
    assert bench.agent.events
    assert bench.ask("disable_events") == {"ok": "task events disabled"}
    assert bench.link.asked == [("events", {"on": on}) for on in (True, True, False)]


def test_rates_are_set_everywhere(bench: Bench, app: Celery) -> None:
    app.task(name="slow", shared=False)(lambda: None)
    assert bench.ask("rate_limit", {"task_name": "slow", "rate_limit": "30/m"}) == {
        "ok": "new rate limit set successfully"
    }
    assert bench.link.asked[-1] == ("rate_limit", {"rates": {"slow": 0.5}})
    assert bench.link.kept["rate_limit"] == {"rates": {"slow": 0.5}}
    answer = bench.ask("rate_limit", {"task_name": "slow", "rate_limit": 0})
    assert answer == {"ok": "rate limits disabled successfully"}
    assert bench.link.kept["rate_limit"] == {"rates": {"slow": 0.0}}


def test_rates_that_make_no_sense(bench: Bench) -> None:
    answer = bench.ask("rate_limit", {"task_name": "celery.map", "rate_limit": "10/d"})
    assert answer["error"].startswith("Invalid rate limit string")
    assert bench.ask("rate_limit", {"task_name": "nobody", "rate_limit": "1/s"}) == {"error": "unknown task"}
    assert bench.link.kept == {}


def test_queues_come_and_go(bench: Bench) -> None:
    assert bench.ask("add_consumer", {"queue": "extra", "exchange": "x"}) == {"ok": "add consumer extra"}
    assert bench.ask("add_consumer", {"queue": "extra"}) == {"ok": "already consuming from 'extra'"}
    assert [each["name"] for each in bench.ask("active_queues")] == ["celery", "extra"]
    assert bench.link.kept["queues"] == {"queues": ["celery", "extra"]}
    assert bench.ask("cancel_consumer", {"queue": "celery"}) == {"ok": "no longer consuming from celery"}
    assert bench.link.asked[-1] == ("queues", {"queues": ["extra"]})


def test_a_queue_that_cannot_be_declared_is_not_taken(bench: Bench) -> None:
    bench.bus.faults.away("declare")
    assert list(bench.ask("add_consumer", {"queue": "extra"})) == ["error"]
    assert bench.agent.queues == ["celery"]
    assert (bench.link.kept, bench.link.asked) == ({}, [])


def test_shutdown_does_not_answer(bench: Bench) -> None:
    assert bench.ask("shutdown") is None
    assert bench.stopped == [True]


def test_tasks_are_shown_without_their_tokens(bench: Bench) -> None:
    shown = [{"id": name, "token": f"o:{name}", "worker_pid": 4_000_000} for name in "ab"]
    bench.link.answers = {"active": [shown[:1]], "reserved": [shown[1:], []]}
    assert bench.ask("active") == [{"id": "a", "worker_pid": 4_000_000}]
    assert bench.ask("query_task", {"ids": ["b", "c"]}) == {"b": ["reserved", {"id": "b", "worker_pid": 4_000_000}]}
