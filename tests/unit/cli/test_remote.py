"""status, inspect and control: arguments in, answers out."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from celeriac.cli.methods import CONTROL, INSPECT, parse
from celeriac.cli.replies import merge, pretty
from celeriac.cli.root import run
from celeriac.worker.commands import Panel


class _Control:
    """Records what is asked; answers what it was given."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def broadcast(self, command: str, **options: Any) -> list[dict[str, Any]] | None:
        self.asked.append((command, options))
        return self.answers if options.get("reply") else None

    def revoke(self, task_id: list[str], **options: Any) -> list[dict[str, Any]]:
        self.asked.append(("revoke", {"task_id": task_id, **options}))
        return self.answers

    def revoke_by_stamped_headers(self, headers: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        self.asked.append(("revoke_by_stamped_headers", {"headers": headers, **options}))
        return self.answers


class _Loader:
    def import_default_modules(self) -> None:
        pass


class _App:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self.control = _Control(list(answers))
        self.loader = _Loader()


@pytest.mark.parametrize("command", ["status", "inspect ping", "control enable_events"])
def test_nobody_answers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.split(), _App()) == 69
    assert capsys.readouterr().err.startswith("Error: no worker answered in time")


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", "status"], _App({"b@h": {"ok": "pong"}}, {"a@h": {"ok": "pong"}})) == 0
    assert capsys.readouterr().out == "a@h: OK\nb@h: OK\n\n2 nodes online.\n"


@pytest.mark.filterwarnings("default::celeriac.exceptions.DuplicateNodenameWarning")
def test_nodes_that_share_a_name_are_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    app = _App({"a@h": []}, {"a@h": [{"name": "slow"}]})
    assert run(["-C", "inspect", "active"], app) == 0
    out, err = capsys.readouterr()
    assert out.startswith('->  a@h: OK\n    - empty -\n->  a@h (2): OK\n    * {"name": "slow"}\n\n2 nodes')
    assert err == "Warning: 2 nodes answer as a@h: start each under a name of its own, -n worker1@%h\n"


def test_status_of_a_node_that_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    app = _App({"a@h": {"ok": "pong"}}, {"b@h": {"ok": "pong", "unready": "its children die as they start"}})
    assert run(["-C", "status"], app) == 1
    assert "b@h: ERROR\n    not ready: its children die as they start" in capsys.readouterr().out


def test_quiet_prints_the_nodes_only(capsys: pytest.CaptureFixture[str]) -> None:
    run(["status", "-q", "-C"], _App({"a@h": {"ok": "pong"}}))
    assert capsys.readouterr().out == "a@h: OK\n"


def test_inspect_shows_each_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", "inspect", "registered"], _App({"a@h": ["proj.add", "proj.sub"]})) == 0
    assert capsys.readouterr().out == "->  a@h: OK\n    * proj.add\n    * proj.sub\n\n1 node online.\n"


def test_an_error_of_a_node_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", "control", "add_consumer", "q"], _App({"a@h": {"error": "KeyError('q')"}})) == 1
    assert "a@h: ERROR\n    KeyError('q')" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "active", "-j"], _App({"a@h": []})) == 0
    assert json.loads(capsys.readouterr().out) == {"a@h": []}


def test_destination_and_timeout() -> None:
    app = _App({"a@h": {"ok": "pong"}})
    assert run(["inspect", "-d", "a@h, b@h", "-t", "0.5", "query_task", "1", "2"], app) == 0
    expected = {
        "arguments": {"ids": ["1", "2"]},
        "destination": ["a@h", "b@h"],
        "reply": True,
        "timeout": 0.5,
        "limit": 2,
    }
    assert app.control.asked == [("query_task", expected)]


HOW = {"destination": None, "by": None, "reason": "", "reply": True, "timeout": 1.0}


def test_revoke_and_terminate() -> None:
    for words in (["revoke", "--terminate", "-s", "SIGKILL", "x"], ["terminate", "SIGKILL", "x"]):
        app = _App({"a@h": {"ok": "flagged"}})
        assert run(["control", *words], app) == 0
        assert app.control.asked == [("revoke", {"task_id": ["x"], "terminate": True, "signal": "SIGKILL", **HOW})]


def test_revoking_says_who_and_why_and_needs_no_worker(capsys: pytest.CaptureFixture[str]) -> None:
    app = _App()
    assert run(["control", "revoke", "x", "y", "--by", "me", "--reason", "why"], app) == 0
    (asked,) = app.control.asked
    assert (asked[1]["task_id"], asked[1]["by"], asked[1]["reason"]) == (["x", "y"], "me", "why")
    assert "obey" in capsys.readouterr().out


def test_revoke_by_stamps() -> None:
    app = _App({"a@h": {"ok": "flagged"}})
    assert run(["control", "revoke_by_stamped_headers", "a=1", "a=2", "b=x"], app) == 0
    assert app.control.asked[0][1]["headers"] == {"a": ["1", "2"], "b": ["x"]}


def test_options_of_revoke_go_with_revoke() -> None:
    assert run(["control", "ping_all", "--terminate"], _App()) == 2
    assert run(["control", "enable_events", "--reason", "x"], _App()) == 2


def test_what_is_not_answered_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    app = _App()
    assert run(["control", "shutdown", "-d", "a@h"], app) == 0
    assert app.control.asked == [("shutdown", {"arguments": {}, "destination": ["a@h"]})]
    assert capsys.readouterr().out == "sent shutdown to a@h; it is not answered\n"


def test_unknown_methods_get_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "activ"], _App()) == 2
    assert "inspect does not know 'activ': did you mean active?" in capsys.readouterr().err


def test_commands_of_the_app_take_names_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Panel.data, "warm_up", lambda state: None)
    app = _App({"a@h": {"ok": "done"}})
    assert run(["control", "warm_up", "n=3", "what=cache"], app) == 0
    assert app.control.asked[0][1]["arguments"] == {"n": 3, "what": "cache"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("terminate", ["SIGKILL", "a", "b"], {"signal": "SIGKILL", "task_id": ["a", "b"]}),
        ("time_limit", ["proj.add", "1", "2.5"], {"task_name": "proj.add", "soft": 1.0, "hard": 2.5}),
        ("pool_grow", [], {}),
        ("autoscale", ["3"], {"max": 3}),
    ],
)
def test_arguments_by_position(name: str, given: list[str], expected: dict[str, Any]) -> None:
    assert parse(name, CONTROL[name], given) == expected


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("revoke", []),
        ("terminate", ["SIGKILL"]),
        ("pool_grow", ["many"]),
        ("enable_events", ["now"]),
        ("rate_limit", ["x"]),
    ],
)
def test_wrong_arguments(name: str, given: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(name, CONTROL[name], given)


def test_the_table_knows_what_nodes_know() -> None:
    """Everything a node offers is in the table (aliases apart), and what it does not offer is marked."""
    marked = {name for name, method in (INSPECT | CONTROL).items() if "(Celery workers only)" in method.help}
    offered = {name for name in Panel.data if not name.startswith("dump_")}
    assert offered - set(INSPECT | CONTROL) == set()
    assert set(INSPECT | CONTROL) - marked == offered


def test_merge_sorts_by_node() -> None:
    assert list(merge([{"b": 1}, {"a": 2}])) == ["a", "b"]
    assert merge(None) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"ok": "pong"}, ("OK", "pong")),
        ({"error": "no"}, ("ERROR", "no")),
        ([], ("OK", "- empty -")),
        ([{"id": 1}], ("OK", '* {"id": 1}')),
        ({"clock": 3}, ("OK", '{\n    "clock": 3\n}')),
    ],
)
def test_pretty(value: Any, expected: tuple[str, str]) -> None:
    assert pretty(value) == expected
