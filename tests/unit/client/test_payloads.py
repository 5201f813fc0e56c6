"""Large bodies and results: warned of, compressed, refused, or kept beside the broker."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from celeriac import signals
from celeriac.client import records
from celeriac.client.current import request_var
from celeriac.client.payloads import Payloads, payloads_of
from celeriac.client.sender import Sender
from celeriac.codec.body import decode_body
from celeriac.codec.reference import CONTENT_TYPE, decode_reference, read_reference
from celeriac.codec.results import encode_result
from celeriac.conf.settings import Settings
from celeriac.exceptions import DecodeError, ImproperlyConfigured, MessageTooLarge, OperationalError, PayloadLost
from celeriac.model.message import Message

LARGE = "x" * 70_000
ACCEPT = frozenset({"json"})
Make = Callable[..., Sender]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(**settings: Any) -> Sender:
        base = {"broker_url": f"memory://{uuid4()}", "payload_store": str(tmp_path / "payloads")}
        return Sender(Settings({**base, **settings}), default_url=lambda: "memory://default")

    return make


def store_of(sender: Sender) -> Payloads:
    found = payloads_of(sender.conf)
    assert found is not None
    return found


def files(tmp_path: Path) -> list[Path]:
    return [each for each in (tmp_path / "payloads").rglob("*") if each.is_file() and not each.name.startswith(".")]


def test_a_large_body_is_kept_beside_the_broker(make: Make, tmp_path: Path) -> None:
    sender = make()
    message = sender.message("report", (LARGE,), {"n": 1})
    assert message.content_type == CONTENT_TYPE
    assert len(message.body) < 400
    fetched = store_of(sender).fetch(message)
    assert (fetched.content_type, fetched.id) == ("application/json", message.id)
    args, kwargs, _ = decode_body(fetched, accept=ACCEPT, max_bytes=1 << 20)
    assert (args, kwargs) == ([LARGE], {"n": 1})
    store_of(sender).drop_body(message)
    assert files(tmp_path) == []
    with pytest.raises(PayloadLost):
        store_of(sender).fetch(message)


def test_a_small_body_stays_in_its_message(make: Make, tmp_path: Path) -> None:
    assert make().message("report", ("x" * 60_000,)).content_type == "application/json"
    assert not (tmp_path / "payloads").exists()


def test_it_is_kept_compressed(make: Make) -> None:
    sender, noise = make(payload_store_min_bytes=2_000), os.urandom(4_000).hex()
    message = sender.message("report", (noise,), options={"compression": "gzip"})
    assert "compression" not in message.headers
    fetched = store_of(sender).fetch(message)
    assert fetched.headers["compression"] == "application/x-gzip"
    assert decode_body(fetched, accept=ACCEPT, max_bytes=1 << 20)[0] == [noise]


def test_the_day_in_its_name_is_after_its_due_time(make: Make) -> None:
    sender = make(payload_store_expires=86400)
    day = decode_reference(sender.message("r", (LARGE,), options={"countdown": 30 * 86400}).body).name[:10]
    assert day == time.strftime("%Y-%m-%d", time.gmtime(time.time() + 32 * 86400))


def test_a_store_that_is_away_raises_from_the_call(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sender = make(payload_store=str(tmp_path / "file" / "payloads"))
    with pytest.raises(OperationalError, match="cannot write in the payload store"):
        sender.message("report", (LARGE,))


def test_inside_a_task_it_stays_in_the_message_then(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    sender = make(payload_store=str(tmp_path / "file" / "payloads"), task_message_warn_bytes=0)
    request: Any = SimpleNamespace(called_directly=False, id="1", root_id="1", is_eager=False)
    token = request_var.set(request)
    try:
        message = sender.message("report", (LARGE,))
    finally:
        request_var.reset(token)
    assert message.content_type == "application/json"
    assert "The arguments of report stay in its message" in caplog.text


def test_receivers_of_signals_see_the_arguments(make: Make) -> None:
    sender = make()
    seen: list[Any] = []

    def sent(body: Any, **kwargs: Any) -> None:
        seen.append(body[0])

    signals.after_task_publish.connect(sent)
    try:
        sender.send(sender.message("report", (LARGE,)))
    finally:
        signals.after_task_publish.disconnect(sent)
    assert seen == [[LARGE]]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "2026-11-29/../x", "/etc/passwd", "2026-11-29/" + "g" * 32, "s3://bucket/x", ""]
)
def test_a_reference_names_nothing_but_payloads(name: str) -> None:
    with pytest.raises(DecodeError, match="no payload reference"):
        read_reference({"name": name, "size": 1, "sha256": ""})


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"name": 1}', b"[" * 10_000, b'{"name":"x","size":-1,"sha256":""}']
)
def test_what_is_no_reference(body: bytes) -> None:
    with pytest.raises(DecodeError, match="no payload reference"):
        decode_reference(body)


def test_damage_is_noticed(make: Make, tmp_path: Path) -> None:
    sender = make()
    message = sender.message("report", (LARGE,))
    (file,) = files(tmp_path)
    for damaged in (LARGE[:-1], LARGE + "x", "y" * decode_reference(message.body).size):
        file.write_text(damaged)
        with pytest.raises(PayloadLost, match="is damaged"):
            store_of(sender).fetch(message)


def test_a_payload_larger_than_allowed_is_not_read(make: Make) -> None:
    message = make().message("report", (LARGE,))
    with pytest.raises(MessageTooLarge):
        store_of(make(max_message_bytes=1000)).fetch(message)


# ------------------------------------------------------------ results


def record(payloads: Payloads, value: Any) -> bytes:
    place = payloads.put_result(value, "json", 60.0)
    return encode_result(task_id="1", state="SUCCESS", result=None, extended={"payload": place})


def test_a_result_is_read_from_the_store(make: Make) -> None:
    sender = make()
    assert records.decode(record(store_of(sender), [LARGE]), sender.conf, "1")["result"] == [LARGE]


def test_a_reader_without_the_store_says_so(make: Make) -> None:
    data = record(store_of(make()), [LARGE])
    with pytest.raises(DecodeError, match="set payload_store here"):
        records.decode(data, make(payload_store=None).conf, "i")


def test_forgetting_drops_it(make: Make, tmp_path: Path) -> None:
    sender = make()
    data = record(store_of(sender), [LARGE])

    class FakeReader:
        forgotten: list[Any] = []

        def get(self, ids: Any, *, timeout: float) -> list[bytes]:
            return [data]

        def forget(self, ids: Any, *, timeout: float) -> None:
            self.forgotten += ids

    records.forget(FakeReader(), "1", sender.conf)  # type: ignore[arg-type]
    assert (FakeReader.forgotten, files(tmp_path)) == (["1"], [])


def test_what_never_expires_is_never_swept(make: Make) -> None:
    payloads = store_of(make())
    assert read_reference(payloads.put_result("x", "json", None)).name.startswith("9999-12-31/")
    assert read_reference(payloads.put_result("x", "json", 1e30)).name.startswith("9999-12-31/")


def test_settings_that_cannot_be(make: Make) -> None:
    with pytest.raises(ImproperlyConfigured, match="relative path"):
        payloads_of(make(payload_store="payloads").conf)


# ------------------------------------------------------------ without a store


def test_a_large_message_is_told_of_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    sender = make(payload_store=None)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sender.message("report", (LARGE,))
        sender.message("other", (LARGE,))
    assert [r.getMessage().partition(" (")[0] for r in caplog.records] == [
        "Task report is sent with 70070 bytes of arguments",
        "Task other is sent with 70070 bytes of arguments",
    ]


def test_no_warning_when_it_is_off(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make(payload_store=None, task_message_warn_bytes=0).message("report", (LARGE,))
    assert caplog.records == []


@pytest.mark.parametrize("value", ["small", LARGE, object])
def test_compression_from_a_size_on(make: Make, value: Any) -> None:
    sender = make(payload_store=None, task_compression="gzip", task_compression_min_bytes=1000)

    def compressed(args: tuple[Any, ...]) -> bool:
        message: Message = sender.message("report", args)
        assert decode_body(message, accept=ACCEPT, max_bytes=1 << 20)[0] == list(args)
        return "compression" in message.headers

    if value is object:  # the careful encoder
        assert not compressed((2**70,))
        assert compressed((2**70, LARGE))
    else:
        assert compressed((value,)) is (value == LARGE)
