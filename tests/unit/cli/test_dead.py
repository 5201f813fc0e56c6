"""``celeriac dead``: what it prints, what it asks, how it ends. The letters are laid there by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from celeriac import Celery
from celeriac.brokers import memory
from celeriac.cli import letters
from celeriac.cli.root import run
from celeriac.client import resolver
from celeriac.model.settle import DeadLetter, DeadReason

_numbers = itertools.count()
AT = datetime(2024, 11, 29, 21, 24, 5, tzinfo=UTC).timestamp()
NASTY = "ValueError: no \x1b[31mmoney\r\n\x9b2J\u202eevil"


@pytest.fixture
def app() -> Iterator[Celery]:
    url = f"memory://dead-cli-{next(_numbers)}"
    made = Celery("dead", broker=url, backend=url, set_as_current=False)

    @made.task(name="shop.pay", shared=False)
    def pay(amount: int, password: str = "", **more: object) -> int:
        return amount

    yield made
    made.close()
    memory.drop(url)


def bury(app: Celery, *ids: str, raw: bytes | None = None, kwargs: Any = None, **facts: Any) -> None:
    fields: dict[str, Any] = {"reason": DeadReason.FAILED, "exception": "ValueError: x", "at": AT, "worker": "w1@h"}

    async def work() -> None:
        broker = resolver.broker(app.broker_url, resolver.adapter_options(app.conf, owner="test"))
        await broker.open()
        held = await broker.claim(["celery"], limit=1000, wait=0.0)
        await broker.settle([DeadLetter(delivery=each, **{**fields, **facts}) for each in held])
        await broker.close()

    for each in ids:
        app.tasks["shop.pay"].apply_async((7,), kwargs or {}, task_id=each)
    if raw is not None:
        with memory.server(app.broker_url).lock:
            memory.server(app.broker_url).queues.add("celery", raw, step=0, due=None, now=0.0)
    asyncio.run(work())


class Shown:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.lines = out.splitlines()


@pytest.fixture
def dead(app: Celery, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> Shown:
        code = run(["-C", "dead", *arguments], app)
        captured = capsys.readouterr()
        return Shown(code, captured.out, captured.err)

    return call


# -- as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b\u202e\u2028", "\\x9b\\u202e\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_nothing_moves_the_cursor(text: str, expected: str) -> None:
    assert letters.visible(text) == expected


def test_the_list(app: Celery, dead: Any) -> None:
    uuid = "0d5c3d2e-0000-4000-a000-0123456789ab"
    bury(app, uuid, exception="ValueError: " + "long " * 40)
    bury(app, "short", reason=DeadReason.LEASE_EXPIRED, exception=NASTY)
    shown = dead("list")
    assert (shown.code, shown.err) == (0, "")
    assert shown.lines[0] == f"{'ID':36}  {'DIED (UTC)':16}  REASON"
    assert shown.lines[1] == f"{'short':36}  2024-11-29 21:24  lease expired too often"
    assert shown.lines[2] == "    shop.pay in celery: ValueError: no \\x1b[31mmoney\\r\\n\\x9b2J\\u202eevil"
    assert shown.lines[3].startswith(f"{uuid}  2024-11-29 21:24  failed")
    assert shown.lines[4].endswith("…")
    assert max(map(len, shown.lines)) == 80


def test_an_empty_list(dead: Any) -> None:
    assert dead("list").out == "There are no dead letters.\n"
    assert dead("list", "--task", "x").out == "No dead letter fits.\n"
    assert dead("list", "--json").out == ""
    assert dead("list", "-q").out == ""


def test_filters_of_the_list(app: Celery, dead: Any) -> None:
    bury(app, "old")
    bury(app, "new", reason=DeadReason.CRASHED, at=datetime.now(UTC).timestamp(), exception="WorkerLostError: gone")

    def found(*arguments: str) -> list[str]:
        return [json.loads(line)["id"] for line in dead("list", "--json", *arguments).lines]

    assert found() == ["new", "old"]
    assert found("--since", "2024-11-29T21:24:06+00:00") == found("--since", "1.5m") == ["new"]
    assert found("--older-than", "2024-11-29T21:24:06+00:00") == found("--older-than", "90s") == ["old"]
    assert (
        found("--reason", "worker-lost") == found("--reason", "worker") == found("--reason", "WORKER_LOST") == ["new"]
    )
    assert found("--exception", "valueerror") == ["old"]
    assert found("--task", "shop.*", "--queue", "celery") == ["new", "old"]
    assert found("--task", "*.mail") == []


def test_there_are_more(app: Celery, dead: Any) -> None:
    bury(app, "a", "b", "c")
    shown = dead("list", "--limit", "2")
    assert len(shown.lines) == 5
    assert shown.err == "There are more than these 2: see --limit.\n"
    assert dead("list", "--limit", "3").err == ""


def test_json_of_the_list(app: Celery, dead: Any) -> None:
    bury(app, "a", exception=NASTY, traceback="one\ntwo", detail="d")
    (line,) = dead("list", "-j").lines
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "key": "1", "id": "a", "task": "shop.pay", "queue": "celery", "reason": "failed", "detail": "d",
        "exception": NASTY, "traceback": "one\ntwo", "worker": "w1@h", "died": "2024-11-29T21:24:05+00:00",
        "retries": 0, "crashes": 0, "expired_leases": 0, "replays": 0, "root_id": "a", "parent_id": "",
        "group_id": "", "bytes": json.loads(line)["bytes"], "problem": "",
    }  # fmt: skip


def test_all_of_one(app: Celery, dead: Any) -> None:
    bury(app, "a", kwargs={"password": "hunter2"}, traceback="Traceback:\n  \x1b[2Jline\n", exception=NASTY)
    shown = dead("show", "a")
    assert shown.code == 0
    for line in (
        "id         a",
        "died       2024-11-29 21:24:05 UTC on w1@h",
        "exception  ValueError: no \\x1b[31mmoney\\r\\n\\x9b2J\\u202eevil",
        "attempts   one",
        "args       [7]",
        "kwargs     {'password': '***'}",
        "Traceback:",
        "  \\x1b[2Jline",
    ):
        assert line in shown.lines
    assert "hunter2" not in shown.out
    found = json.loads(dead("show", "--json", "a").out)
    assert (found["args"], found["kwargs"]) == ([7], {"password": "***"})


def test_names_that_are_masked(app: Celery, dead: Any) -> None:
    app.conf.redact_names = ["iban"]
    bury(app, "a", kwargs={"iban": "DE1", "pay": {"Authorization": "Bearer x", "by": "me"}, "url": "amqp://u:p@h//"})
    kwargs = {"iban": "***", "pay": {"Authorization": "***", "by": "me"}, "url": "amqp://u:********@h//"}
    assert json.loads(dead("show", "--json", "a").out)["kwargs"] == kwargs
    assert f"kwargs     {kwargs}" in dead("show", "a").lines


def test_all_of_a_malformed_one(app: Celery, capfdbinary: Any) -> None:
    raw = b"\xff\x00 rubbish\n"
    bury(app, raw=raw, reason=DeadReason.MALFORMED, exception="")
    assert run(["dead", "show", "1", "--raw"], app) == 0
    assert capfdbinary.readouterr().out == raw
    assert run(["dead", "show", "1"], app) == 0
    out = capfdbinary.readouterr().out.decode()
    assert "malformed  not an envelope" in out
    assert "args       (cannot be decoded here)" in out


def test_what_does_not_exist(app: Celery, dead: Any) -> None:
    for command in (["show", "x"], ["retry", "x"], ["drop", "x"]):
        shown = dead(*command)
        assert (shown.code, shown.out) == (1, "")
        assert shown.err == "Error: no dead letter has the id or key 'x': look at the list\n"


# -- sent again, dropped


def test_one_is_sent_again(app: Celery, dead: Any) -> None:
    bury(app, "a", "b")
    assert dead("retry", "a").out == "Sent 1 dead letter again.\n"
    assert json.loads(dead("retry", "b", "--json").out) == {"sent": ["b"], "skipped": []}
    assert app.dead_letters.count() == 0


def test_arguments_can_be_changed(app: Celery, dead: Any) -> None:
    bury(app, "a", "b")
    shown = dead("retry", "a", "-k", '{"amount": 1}')
    assert shown.code == 2
    assert "multiple values for argument 'amount'" in shown.err
    assert dead("retry", "a", "-a", "[8]", "-k", '{"password": "p"}', "--countdown", "60").code == 0
    assert dead("retry", "a", "b", "-a", "[1]").code == 2
    assert dead("retry", "--all", "-y", "-a", "[1]").code == 2
    assert dead("retry", "b", "-a", "{}").code == 2
    assert [each.id for each in app.dead_letters.list()] == ["b"]


def test_some_of_many_ids(app: Celery, dead: Any) -> None:
    bury(app, "a")
    bury(app, raw=b"rubbish", reason=DeadReason.MALFORMED)
    shown = dead("retry", "a", "nobody", "2")
    assert (shown.code, shown.out) == (1, "Sent 1 dead letter again.\n")
    first, second, third = shown.err.splitlines()
    assert first.startswith("Skipped nobody: no dead letter")
    assert second.startswith("Skipped 2: dead letter 2 is no task message")
    assert third == "Error: 2 dead letters skipped"


def test_all_that_fit(app: Celery, dead: Any) -> None:
    bury(app, "a", "b", "c")
    bury(app, "d", reason=DeadReason.REJECTED)
    bury(app, raw=b"\x1b rubbish", reason=DeadReason.MALFORMED)
    assert dead("retry", "--reason", "failed", "--limit", "2", "-y").out == "Sent 2 dead letters again.\n"
    shown = dead("retry", "--all", "--yes", "--to-queue", "slow")
    assert (shown.code, shown.out) == (1, "Sent 2 dead letters again.\n")
    assert shown.err.startswith("Skipped 5: dead letter 5 is no task message")
    assert dead("drop", "--reason", "malformed", "-y").out == "Dropped 1 dead letter.\n"
    assert dead("drop", "--all", "-y").out == "No dead letter fits.\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["retry"], "which ones? Name them by their IDs, choose them by filters, or say --all"),
        (["drop"], "which ones?"),
        (["retry", "--limit", "3"], "which ones?"),
        (["retry", "--all"], "confirm with --yes"),
        (["drop", "--task", "x"], "confirm with --yes"),
        (["retry", "a", "--all"], "not both"),
        (["drop", "a", "--task", "x"], "not both"),
        (["list", "--since", "yesterday"], "'yesterday' is no time: write 90s, 10m, 2h"),
        (["list", "--reason", "tired"], "'tired' is no reason: they are failed, worker lost"),
        (["list", "--reason", "re"], "'re' is no reason"),
    ],
)
def test_typing_errors(app: Celery, dead: Any, arguments: list[str], expected: str) -> None:
    bury(app, "a")
    shown = dead(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert expected in shown.err
    assert shown.err.count("\n") == 1
    assert app.dead_letters.count() == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 130, 1)])
def test_it_asks(app: Celery, dead: Any, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int) -> None:
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    bury(app, "a")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    shown = dead("drop", "--all")
    assert shown.code == code
    assert shown.out.startswith("Drop 1 dead letter for ever? [y/N]: ")
    assert app.dead_letters.count() == left


def test_without_a_command_it_helps(dead: Any) -> None:
    shown = dead()
    assert shown.code == 0
    assert "retry" in shown.out


def test_global_options_stand_behind_it_too(app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dead", "list", "-q", "--no-color"], app) == 0
    assert run(["dead", "-q", "list"], app) == 0
    assert capsys.readouterr().out == ""
