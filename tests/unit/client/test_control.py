"""Remote control: the requests that are sent, and how replies are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from celeriac.client.control import Control
from celeriac.client.sender import Sender
from celeriac.codec.signing import SIGNATURE, control_signer_of
from celeriac.conf.settings import Settings
from celeriac.exceptions import DuplicateNodenameWarning

PONG = {"ok": "pong"}


class FakeCaller:
    def __init__(self, *replies: Mapping[str, Any]) -> None:
        self.replies = replies
        self.calls: list[tuple[Mapping[str, Any], dict[str, Any]]] = []

    def call(self, request: Mapping[str, Any], **how: Any) -> Sequence[Mapping[str, Any]]:
        self.calls.append((request, how))
        return self.replies if how["reply"] else []

    def close(self) -> None: ...


def make(*replies: Mapping[str, Any], **settings: Any) -> tuple[Control, FakeCaller]:
    conf = Settings({"broker_url": f"memory://{uuid4()}", **settings})
    sender = Sender(conf, default_url=lambda: "memory://")
    control = Control(SimpleNamespace(conf=conf, sender=sender, default_url=lambda: "memory://"))
    caller = FakeCaller(*replies)
    control._caller._make = lambda: caller  # type: ignore[assignment,return-value]
    return control, caller


@pytest.mark.parametrize(
    ("name", "given", "method", "arguments"),
    [
        ("revoke", ("i",), "revoke", {"task_id": "i", "terminate": False, "signal": "SIGTERM"}),
        ("revoke", (["i", "j"],), "revoke", {"task_id": ["i", "j"], "terminate": False, "signal": "SIGTERM"}),
        ("terminate", ("i", None, "SIGKILL"), "revoke", {"task_id": "i", "terminate": True, "signal": "SIGKILL"}),
        (
            "revoke_by_stamped_headers",
            ({"a": "b"},),
            "revoke_by_stamped_headers",
            {"headers": {"a": "b"}, "terminate": False, "signal": "SIGTERM"},
        ),
        ("rate_limit", ("t", "10/m"), "rate_limit", {"task_name": "t", "rate_limit": "10/m"}),
        ("time_limit", ("t", 5, 9), "time_limit", {"task_name": "t", "soft": 5, "hard": 9}),
        ("shutdown", (), "shutdown", {}),
        (
            "add_consumer",
            ("q",),
            "add_consumer",
            {"queue": "q", "exchange": None, "exchange_type": "direct", "routing_key": None},
        ),
        ("cancel_consumer", ("q",), "cancel_consumer", {"queue": "q"}),
        ("pool_grow", (2,), "pool_grow", {"n": 2}),
        ("pool_shrink", (), "pool_shrink", {"n": 1}),
        ("autoscale", (9, 1), "autoscale", {"max": 9, "min": 1}),
        ("pool_restart", (["m"], True), "pool_restart", {"modules": ["m"], "reload": True}),
        ("enable_events", (), "enable_events", {}),
        ("disable_events", (), "disable_events", {}),
        ("heartbeat", (), "heartbeat", {}),
    ],
)
def test_commands(name: str, given: tuple[Any, ...], method: str, arguments: dict[str, Any]) -> None:
    control, caller = make()
    assert getattr(control, name)(*given) is None
    ((request, how),) = caller.calls
    origin = request["origin"]
    assert (origin["host"], origin["pid"]) == (os.uname().nodename, os.getpid())
    assert request == {
        "origin": origin,
        "method": method,
        "arguments": arguments,
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    assert how == {"timeout": 1.0, "limit": None, "reply": False}


def test_replies_come_back() -> None:
    control, caller = make({"a": PONG}, {"b": PONG})
    heard: list[Any] = []
    assert control.ping(timeout=0.1) == [{"a": PONG}, {"b": PONG}]
    assert control.broadcast("ping", reply=True, destination="a", callback=heard.append) == [{"a": PONG}, {"b": PONG}]
    assert len(heard) == 2
    assert caller.calls[1][0]["destination"] == ["a"]
    assert caller.calls[1][1]["limit"] == 1
    assert control.broadcast("own", reply=True, extra=1, pattern="w*", matcher="glob") is not None
    assert caller.calls[2][0]["arguments"] == {"extra": 1}


def test_inspect() -> None:
    control, caller = make({"a": ["x"]}, {"b": []})
    inspect = control.inspect(timeout=0.1)
    for name in (
        "active",
        "scheduled",
        "reserved",
        "stats",
        "revoked",
        "registered",
        "active_queues",
        "clock",
        "report",
    ):
        assert getattr(inspect, name)() == {"a": ["x"], "b": []}
        assert caller.calls[-1][0]["method"] == name
        assert caller.calls[-1][0]["arguments"] == {}
    inspect.query_task("i", "j")
    assert caller.calls[-1][0]["arguments"] == {"ids": ["i", "j"]}
    inspect.registered("max_retries")
    assert caller.calls[-1][0]["arguments"] == {"taskinfoitems": ["max_retries"]}
    inspect.conf(with_defaults=True)
    assert caller.calls[-1][0]["arguments"] == {"with_defaults": True}
    inspect.memsample(n=1)
    assert caller.calls[-1][0]["method"] == "memsample"


def test_inspecting_one_node_gives_its_answer_alone() -> None:
    control, _ = make({"a": PONG})
    assert control.inspect("a").ping() == PONG
    assert control.inspect(["a"]).ping() == {"a": PONG}
    assert control.inspect().ping(["a"]) == {"a": PONG}


def test_nobody_answers() -> None:
    control, _ = make()
    assert control.ping() == []
    assert control.inspect().active() is None


def test_nodes_of_one_name_are_told() -> None:
    control, _ = make({"a": PONG}, {"a": PONG})
    with pytest.warns(DuplicateNodenameWarning, match="node a"):
        control.inspect().ping()


def test_purge_counts_what_it_drops() -> None:
    control, _ = make()
    sender = control.app.sender
    sender.send([sender.message("t") for _ in range(3)])
    sender.send(sender.message("t", (), {}, {"queue": "elsewhere"}))
    assert control.purge() == 3
    assert control.discard_all() == 0


def test_by_memory_nobody_listens() -> None:
    control, _ = make()
    control._caller._make = control._open
    assert control.ping(timeout=0.01) == []
    control.close()


def test_with_a_key_commands_are_signed_as_a_whole() -> None:
    control, caller = make(control_key="a key of sixteen bytes and more")
    control.ping(["w@h"])
    control.shutdown()
    (asked, _), (told, _) = caller.calls
    signer = control_signer_of(control.app.conf)
    assert signer is not None
    for request in (asked, told):
        assert signer.is_command(request)
        assert 0 < request["until"] - request["issued"] <= 60
        for name in ("method", "arguments", "destination", "pattern", "origin", "ticket", "issued", "until"):
            assert not signer.is_command({**request, name: "changed"}), name
            assert not signer.is_command({key: value for key, value in request.items() if key != name}), name
    assert asked["ticket"] != told["ticket"]
    assert set(asked["reply_to"]) == {"exchange", "routing_key"}
    assert not signer.is_command({**asked, "reply_to": {**asked["reply_to"], "routing_key": "elsewhere"}})
    assert "reply_to" not in told


def test_the_signing_key_signs_commands_too_and_without_one_nothing_does() -> None:
    control, caller = make(signing_key=["the newest key of two", "the key before that"])
    control.ping()
    signer = control_signer_of(control.app.conf)
    assert signer is not None
    assert signer.is_command(caller.calls[0][0])
    control, caller = make()
    control.ping()
    assert not {SIGNATURE, "ticket", "reply_to"} & caller.calls[0][0].keys()
