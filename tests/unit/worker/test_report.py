"""What the outside hears: Celery's log lines, nobody else's; events; signals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celery, signals
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Marks
from celeriac.model.options import TaskOptions
from celeriac.model.plan import Plan, plan
from celeriac.worker.report import Report
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery, malformed

Make = Callable[..., Runner]


class Ear:
    """A report whose lines and events are kept."""

    def __init__(self, caplog: pytest.LogCaptureFixture, **options: Any) -> None:
        caplog.set_level(logging.INFO)
        self.caplog = caplog
        self.report = Report(**options)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.report.emit = lambda kind, fields: self.events.append((kind, fields))

    def conclude(self, each: Delivery, outcome: o.Outcome, *, throws: Any = (), runtime: float = 0.5) -> Plan:
        decided = plan(each, outcome, TaskOptions(name="t", throws=throws), 1_000.0, 0.5)
        self.report.concluded(each, outcome, decided, runtime)
        return decided

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        return [(each.name, each.levelname, each.getMessage()) for each in self.caplog.records]


@pytest.fixture
def ear(caplog: pytest.LogCaptureFixture) -> Ear:
    return Ear(caplog)


TRACE, STRATEGY = "celery.app.trace", "celery.worker.strategy"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (o.Success(5), (TRACE, "INFO", "Task t[x] succeeded in 0.5s")),
        (o.RetryAsked(ValueError("bad"), "", None), (TRACE, "INFO", "Task t[x] retry: bad")),
        (o.Ignored(), (TRACE, "INFO", "Task t[x] ignored")),
        (o.Rejected("why", True), (TRACE, "INFO", "Task t[x] rejected (requeued): why")),
        (o.Rejected("why", False), (TRACE, "INFO", "Task t[x] rejected: why")),
        (o.Revoked("expired"), (TRACE, "INFO", "Discarding expired task: t[x]")),
        (o.TimedOut(5.0), (TRACE, "ERROR", "Hard time limit (5.0s) exceeded for t[x]")),
        (o.Unstarted(), None),
        (o.Repeated(), (STRATEGY, "INFO", "Task t[x] was delivered again but is already done")),
    ],
)
def test_lines(ear: Ear, outcome: o.Outcome, line: tuple[str, str, str] | None) -> None:
    ear.conclude(delivery(id="x"), outcome)
    assert ear.lines == ([line] if line else [])


def test_failures_expected_or_not(ear: Ear) -> None:
    ear.conclude(delivery(id="x"), o.Failure(KeyError("k"), "Traceback:\n  File\n"))
    ear.conclude(delivery(id="x"), o.Failure(KeyError("k"), "tb"), throws=(KeyError,))
    (_, level, text), second = ear.lines
    assert level == "ERROR"
    assert text.splitlines() == ["Task t[x] raised unexpected: KeyError('k')", "  Traceback:", "    File"]
    assert second == (TRACE, "INFO", "Task t[x] raised expected: KeyError('k')")


def test_a_crash_says_what_follows(ear: Ear) -> None:
    ear.conclude(delivery(id="x"), o.Crashed("signal 9 (SIGKILL)"))
    ear.conclude(delivery(id="x", marks=Marks(crashes=2)), o.Crashed("exit code 1"))
    assert [text for _, _, text in ear.lines] == [
        "Worker process died by signal 9 (SIGKILL) while it ran task t[x], which goes back to its queue",
        "Worker process died by exit code 1 while it ran task t[x], which goes to the dead letters",
    ]


def test_an_unknown_one_is_told_once_and_at_its_end(ear: Ear) -> None:
    ear.conclude(delivery(id="x"), o.Unknown())
    ear.conclude(delivery(id="x", marks=Marks(parked_until=2_000.0)), o.Unknown())
    ear.conclude(delivery(id="x", marks=Marks(parked_until=900.0)), o.Unknown())
    first, last = ear.lines
    assert first[2] == "Received unregistered task t[x]: it waits for a worker that knows it"
    assert last[2].startswith("Task t[x] goes to the dead letters: no worker knows the task 't'")


def test_malformed_ones_have_what_could_be_read(ear: Ear) -> None:
    bad = malformed()
    ear.conclude(bad, o.Discarded(ValueError(), "not JSON"))
    assert ear.lines[0][2] == "Message ?[?] in queue 'celery' goes to the dead letters: not JSON"


FORGED = "x]\n[2030-01-01 00:00:00: CRITICAL/MainProcess] all is lost\x1b[2J\x85\u2028"


@pytest.mark.parametrize(
    "outcome",
    [
        o.Success(FORGED),
        o.Failure(ValueError(FORGED), f"Traceback\nValueError: {FORGED}"),
        o.RetryAsked(ValueError(FORGED), "", None),
        o.Rejected(FORGED, False),
        o.Revoked("revoked"),
        o.TimedOut(5.0),
        o.Crashed("exit code 1"),
        o.Unknown(),
        o.Discarded(ValueError(FORGED), FORGED),
        o.Repeated(),
        o.Ignored(),
    ],
)
def test_nothing_in_a_message_makes_a_line(caplog: pytest.LogCaptureFixture, outcome: o.Outcome) -> None:
    ear = Ear(caplog, log_arguments=True, log_results=True)
    each = delivery(FORGED, id=FORGED, headers={"argsrepr": FORGED, "kwargsrepr": FORGED, "shadow": FORGED})
    ear.report.received(each.message, None)  # type: ignore[arg-type]
    ear.conclude(each, outcome)
    for _, _, text in ear.lines:
        first, *rest = text.split("\n")
        assert not any(character in first for character in "\x1b\x85\u2028\r")
        assert all(line.startswith("  ") for line in rest)
        assert "\\x0a[2030" in text or "\\n[2030" in text


def test_neither_arguments_nor_results_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    each = delivery(id="x", headers={"argsrepr": "('secret',)", "kwargsrepr": "{'a': 1}"})
    for ear in (Ear(caplog), Ear(caplog, log_arguments=True, log_results=True)):
        ear.report.received(each.message, None)  # type: ignore[arg-type]
        ear.conclude(each, o.Success("answer" * 1_000))
    silent, quiet, told, shown = [record.getMessage() for record in caplog.records]
    assert (silent, quiet) == ("Task t[x] received", "Task t[x] succeeded in 0.5s")
    assert told == "Task t[x] received args=('secret',) kwargs={'a': 1}"
    assert shown.startswith("Task t[x] succeeded in 0.5s: 'answeranswer")
    assert len(shown) < 1_100


def test_the_shadow_is_the_name(ear: Ear) -> None:
    ear.conclude(delivery(id="x", headers={"shadow": "other"}), o.Success(1))
    assert ear.lines[0][2].startswith("Task other[x] succeeded")


def test_levels_are_read_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    report = Report()
    ear = Ear(caplog)
    ear.report = report
    ear.conclude(delivery(), o.Success(1))
    assert ear.lines == []
    report.refresh()
    ear.conclude(delivery(), o.Success(1))
    assert len(ear.lines) == 1


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_values_that_cannot_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear(caplog, log_results=True)
    ear.report.events = True
    ear.conclude(delivery(id="x"), o.Success(Unshowable()))
    for shown in (ear.lines[0][2], ear.events[0][1]["result"]):
        assert shown.endswith("Unshowable'>: RuntimeError>")


# -- events --------------------------------------------------------------------------------------------------------


def test_no_events_unless_on(ear: Ear) -> None:
    each = delivery()
    ear.report.received(each.message, None)  # type: ignore[arg-type]
    ear.conclude(each, o.Success(1))
    assert ear.events == []


def test_received_and_started(ear: Ear) -> None:
    ear.report.events = True
    headers = {"argsrepr": "(2,)", "root_id": "r", "parent_id": "p", "eta": "2030", "expires": None}
    each = delivery(id="x", headers=headers, retries=2)
    ear.report.received(each.message, None)  # type: ignore[arg-type]
    received, started = ear.events
    assert received == (
        "task-received",
        {
            "uuid": "x",
            "name": "t",
            "args": "(2,)",
            "kwargs": "",
            "root_id": "r",
            "parent_id": "p",
            "retries": 2,
            "eta": "2030",
            "expires": None,
        },
    )
    assert started == ("task-started", {"uuid": "x"})


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (o.Success([1]), ("task-succeeded", {"result": "[1]", "runtime": 0.5})),
        (o.Failure(KeyError("k"), "tb"), ("task-failed", {"exception": "KeyError('k')", "traceback": "tb"})),
        (o.RetryAsked(KeyError("k"), "tb", None), ("task-retried", {"exception": "KeyError('k')", "traceback": "tb"})),
        (
            o.Revoked("terminated", 9),
            ("task-revoked", {"terminated": True, "signum": 9, "expired": False}),
        ),
        (o.Revoked("expired"), ("task-revoked", {"terminated": False, "signum": None, "expired": True})),
        (o.Rejected("no", True), ("task-rejected", {"requeue": True})),
        (o.Ignored(), None),
        (o.Unstarted(), None),
        (o.Repeated(), None),
    ],
)
def test_events(ear: Ear, outcome: o.Outcome, event: tuple[str, dict[str, Any]] | None) -> None:
    ear.report.events = True
    ear.conclude(delivery(id="x"), outcome)
    assert ear.events == ([] if event is None else [(event[0], {"uuid": "x", **event[1]})])


@pytest.mark.parametrize("outcome", [o.TimedOut(5.0), o.Discarded(ValueError("bad"), "bad")])
def test_other_failures_are_failures(ear: Ear, outcome: o.Outcome) -> None:
    ear.report.events = True
    ear.conclude(delivery(id="x"), outcome)
    ((kind, fields),) = ear.events
    assert kind == "task-failed"
    assert set(fields) == {"uuid", "exception", "traceback"}


# -- signals -------------------------------------------------------------------------------------------------------


def heard(signal: signals.Signal, act: Callable[[], object]) -> list[dict[str, Any]]:
    received: list[dict[str, Any]] = []

    def receiver(sender: Any = None, **named: Any) -> None:
        received.append(named)

    signal.connect(receiver)
    try:
        act()
    finally:
        signal.disconnect(receiver)
    return received


def test_signals(ear: Ear) -> None:
    each, exc = delivery(id="x"), ValueError("bad")
    (unknown,) = heard(signals.task_unknown, lambda: ear.conclude(each, o.Unknown()))
    assert (unknown["name"], unknown["id"], unknown["message"]) == ("t", "x", each.message)
    assert isinstance(unknown["exc"], KeyError)
    (rejected,) = heard(signals.task_rejected, lambda: ear.conclude(each, o.Discarded(exc, "bad")))
    assert (rejected["exc"], rejected["message"]) == (exc, each.message)
    (revoked,) = heard(signals.task_revoked, lambda: ear.conclude(each, o.Revoked("terminated", 15)))
    assert (revoked["terminated"], revoked["signum"], revoked["expired"]) == (True, 15, False)
    assert revoked["request"] is each.message
    request = object()
    (received,) = heard(signals.task_received, lambda: ear.report.received(each.message, request))  # type: ignore[arg-type]
    assert received["request"] is request


def test_other_outcomes_send_none(ear: Ear) -> None:
    for signal in (signals.task_unknown, signals.task_rejected, signals.task_revoked):
        assert heard(signal, lambda: ear.conclude(delivery(), o.Success(1))) == []
        assert heard(signal, lambda: ear.conclude(delivery(), o.Failure(ValueError(), ""))) == []


def test_the_runner_reports(app: Celery, make_runner: Make, ear: Ear) -> None:
    app.task(name="add")(lambda x, y: x + y)
    ear.report.events = True
    make_runner(report=ear.report).run(delivery("add", 1, 2, id="x"))
    assert [kind for kind, _ in ear.events] == ["task-received", "task-started", "task-succeeded"]
    assert [text.split(" in ")[0] for _, _, text in ear.lines] == ["Task add[x] received", "Task add[x] succeeded"]


def test_events_and_lines_do_not_show_secrets(caplog: pytest.LogCaptureFixture, runner: Runner) -> None:
    """Not even of senders that have not hidden them."""
    ear = Ear(caplog, log_arguments=True, log_results=True, redact_names=("ssn",))
    ear.report.events = True
    shown = {"argsrepr": "('u', {'token': 'hunter2'})", "kwargsrepr": "{'password': 'hunter2', 'ssn': 'hunter2'}"}
    each = delivery("t", headers=shown)
    ear.report.received(each.message, None)  # type: ignore[arg-type]
    ear.conclude(each, o.Success({"api_key": "hunter2", "ssn": "hunter2", "n": 1}))
    assert "hunter2" not in repr(ear.events)
    assert "hunter2" not in caplog.text
    assert "'n': 1" in caplog.text
