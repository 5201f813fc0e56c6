"""What is not shown, and what is."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac import Secret
from celeriac.client.sender import Sender
from celeriac.codec import json
from celeriac.codec.body import decode_body
from celeriac.codec.redaction import hides, redacted
from celeriac.codec.saferepr import saferepr
from celeriac.conf.settings import Settings


@pytest.mark.parametrize(
    "name",
    ["password", "DB_PASSWORD", "apiKey", "api-key", "api_key", "x-auth-token", "Authorization", "client_secret"],
)
def test_telling_names(name: str) -> None:
    assert hides()(name)
    for value in ("hunter2", 17, ["hunter2"], {"a": "hunter2"}, None):
        assert saferepr({name: value}) == f"{{{name!r}: '***'}}"
        assert saferepr([{"deeper": {name: value}}]) == f"[{{'deeper': {{{name!r}: '***'}}}}]"


@pytest.mark.parametrize("name", ["user", "key", "passenger", "sort_key", "monkey"])
def test_others(name: str) -> None:
    assert not hides()(name)
    assert saferepr({name: "shown"}) == f"{{{name!r}: 'shown'}}"


def test_more_names() -> None:
    hidden = hides(("ssn", "card_number"))
    assert hidden("SSN")
    assert hidden("cardNumber")
    assert hidden("password")
    assert saferepr({"ssn": 1}, hidden=hidden) == "{'ssn': '***'}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{'user': 'u', 'password': 'it\\'s, here)', 'n': 2}", "{'user': 'u', 'password': '***', 'n': 2}"),
        ("{'token': 17, 'n': 2}", "{'token': '***', 'n': 2}"),
        ('("a", auth_token="x y", b=3)', "(\"a\", auth_token='***', b=3)"),
        ('{"api_key": "x"}', "{\"api_key\": '***'}"),
        ("(1, 2)", "(1, 2)"),
        ("{'secret': 'cut of...", "{'secret': '***'"),
    ],
)
def test_texts_of_other_senders(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_long_and_hostile_texts_cost_little() -> None:
    hostile = ["password='" * 100_000, "'" * 1_000_000, "a" * 1_000_000, "password" * 100_000, "token: " + "\\" * 10**6]
    began = time.process_time()
    for text in hostile:
        assert len(redacted(text)) < 10_000
    assert time.process_time() - began < 2.0


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    assert isinstance(redacted(text, ("more",)), str)


def test_senders_hide_what_the_settings_name() -> None:
    conf = Settings({"broker_url": "memory://redaction", "redact_names": ["ssn"]})
    sender = Sender(conf, default_url=lambda: "memory://redaction")
    message = sender.message("t", ("a",), {"ssn": "123", "password": "hunter2", "x": 1})
    assert message.headers["kwargsrepr"] == "{'ssn': '***', 'password': '***', 'x': 1}"
    conf.redact_names = ["x"]
    assert sender.message("t", (), {"ssn": "1", "x": 1}).headers["kwargsrepr"] == "{'ssn': '1', 'x': '***'}"
    assert sender.message("t", (), {"x": 1}, {"countdown": 1}).headers["kwargsrepr"] == "{'x': '***'}"


# ---------------------------------------------------------------- Secret


def test_a_secret_is_never_shown() -> None:
    secret = Secret("hunter2")
    holder: list[Any] = [secret, {"a": secret}, (secret,)]
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>5}",
        repr(holder),
        saferepr(holder),
    ):
        assert "hunter2" not in shown
        assert "***" in shown
    assert secret.value == "hunter2"
    assert not hasattr(secret, "__dict__")


def test_it_compares_by_value_with_secrets_only() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_it_travels_hidden_and_arrives_hidden() -> None:
    sender = Sender(Settings({"broker_url": "memory://secret"}), default_url=lambda: "memory://secret")
    message = sender.message("t", (Secret("hunter2"), 1), {"x": {"y": Secret([1, 2])}})
    assert "hunter2" not in str(message.headers)
    args, kwargs, _ = decode_body(message, accept=frozenset({"json"}), max_bytes=10_000)
    assert args == [Secret("hunter2"), 1]
    assert kwargs["x"]["y"].value == [1, 2]
    assert json.loads(json.dumps(Secret(None))) == Secret(None)
    assert pickle.loads(pickle.dumps(Secret("a"))) == Secret("a")


def test_names_that_are_known_to_be_harmless() -> None:
    class Key(str):
        __slots__ = ()

        def __repr__(self) -> str:
            return "odd"

    hidden = hides(("only here",))
    assert saferepr({"name": 1, "only here": 2}, hidden=hidden) == "{'name': 1, 'only here': '***'}"
    assert hidden.harmless == {"name"}
    assert saferepr({"name": 1, "only here": 2}) == "{'name': 1, 'only here': 2}", "others hide others"
    assert saferepr({Key("name"): 1}, hidden=hidden) == "{'name': 1}", "as Celery shows it"
    assert not hidden("n" * 65)
    assert len(hidden.harmless) == 1, "long ones are not kept there"
    for number in range(2_500):
        hidden(f"n{number}")
    assert len(hidden.harmless) <= 1_000
