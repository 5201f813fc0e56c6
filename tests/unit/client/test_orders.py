"""Orders to the fleet: what is written, under which keys, and what cannot be."""

from __future__ import annotations

import itertools
import signal
import time
from typing import Any

import pytest

from celeriac import Celery
from celeriac.client import orders
from celeriac.client.signal_names import signal_number
from celeriac.codec.signing import control_signer_of
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured, OperationalError
from celeriac.model.rules import Order, Rule, RuleChange, decode_order

_numbers = itertools.count(1)


@pytest.fixture
def app() -> Celery:
    url = f"memory://orders-{next(_numbers)}"
    return Celery("proj", broker=url, backend=url, set_as_current=False)


def written(app: Celery, prefix: str = "") -> dict[str, Rule]:
    return {rule.key: rule for rule in app.sender.publisher.rules(prefix, timeout=5.0).rules}  # type: ignore[attr-defined]


def order(rule: Rule) -> Order:
    assert rule.value is not None
    return decode_order(rule.value)


def test_revoke_is_written(app: Celery) -> None:
    app.control.revoke(["a", "b"], by="me", reason="why")
    rules = written(app)
    assert list(rules) == ["revoke:a", "revoke:b"]
    told = order(rules["revoke:a"])
    assert (told.by, told.reason, told.terminate, told.signal) == ("me", "why", False, "SIGTERM")
    assert told.at == pytest.approx(time.time(), abs=5)
    until = rules["revoke:a"].expires
    assert until == pytest.approx(time.time() + 30 * 86400, abs=5)


def test_terminate_and_a_life_of_its_own(app: Celery) -> None:
    app.conf.task_revoke_expires = None
    app.control.terminate("a", signal="KILL")
    (rule,) = written(app).values()
    assert (order(rule).terminate, order(rule).signal, rule.expires) == (True, "KILL", None)


def test_who_by_default(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(orders.socket, "gethostname", lambda: "box")
    app.control.revoke("a")
    assert order(written(app)["revoke:a"]).by == "ada@box"

    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(orders.getpass, "getuser", unknown)
    app.control.revoke("b")
    assert order(written(app)["revoke:b"]).by == "somebody@box"


def test_results_revoke_themselves_and_their_parents(app: Celery) -> None:
    header = app.GroupResult("g", [app.AsyncResult("m1"), app.AsyncResult("m2")])
    step = app.AsyncResult("s", parent=header)
    last = app.AsyncResult("l", parent=step)
    last.revoke(by="x")
    assert list(written(app)) == ["revoke:l"]
    last.revoke(parents=True, reason="y")
    assert set(written(app)) == {f"revoke:{each}" for each in ("l", "s", "m1", "m2")}
    app.GroupResult("h", [app.AsyncResult("n1")]).revoke(reason="z")
    assert order(written(app)["revoke:n1"]).reason == "z"


def test_stamps(app: Celery) -> None:
    app.control.revoke_by_stamped_headers({"customer": ["17", "18"], "region": "eu"}, by="x")
    assert list(written(app)) == ["stamp:customer=17", "stamp:customer=18", "stamp:region=eu"]


def test_pause_and_resume(app: Celery) -> None:
    app.control.pause_queue("a", "b", by="me", reason="why")
    paused = app.control.paused_queues()
    assert (list(paused), paused["a"].by, paused["b"].reason) == (["a", "b"], "me", "why")
    assert written(app)["pause:a"].expires is None
    app.control.resume_queue("a", "never paused")
    assert list(app.control.paused_queues()) == ["b"]


def test_a_signal_that_does_not_exist_is_refused_here(app: Celery) -> None:
    with pytest.raises(ValueError, match="NONSENSE"):
        app.control.revoke("a", terminate=True, signal="NONSENSE")
    assert written(app) == {}


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), (9, 9), ("9", 9), (signal.SIGUSR1, signal.SIGUSR1), ("Kill", 9)],
)
def test_signals(name: Any, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIG", "SIG_IGN", "0", "999", "-9", "²", {"a": 1}, None])
def test_no_signals(name: Any) -> None:
    with pytest.raises(ValueError, match="no signal"):
        signal_number(name)


class Plain:
    """A publisher of a broker without rules."""

    def close(self) -> None: ...


def test_a_broker_without_rules(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.sender._publisher, "_make", Plain)
    with pytest.warns(CeleryWarning, match="only the workers that run now hear of what is revoked: set ledger_url"):
        app.control.revoke("a")  # those who run are told
    with pytest.raises(ImproperlyConfigured, match="cannot be paused: stop their workers, or set ledger_url"):
        app.control.pause_queue("q")


def test_a_broker_that_is_away() -> None:
    app = Celery("proj", broker="sqlite:////nowhere/at/all/x.db", set_as_current=False)
    with pytest.raises(OperationalError):
        app.control.revoke("a")
    with pytest.raises(OperationalError):
        app.control.paused_queues()


def test_orders_are_signed(app: Celery) -> None:
    app.conf.control_key = "a key of sixteen bytes"
    signer = control_signer_of(app.conf)
    assert signer is not None
    app.control.revoke("a", by="me")
    app.control.pause_queue("q", by="me")
    for key, rule in written(app).items():
        assert decode_order(signer.unseal("rule", key, rule.value or b"")).by == "me"
    app.sender.publisher.set_rules([RuleChange("pause:forged", b"{}")], timeout=5.0)  # type: ignore[attr-defined]
    assert list(app.control.paused_queues()) == ["q"]
