"""What one producer call puts on the lists: `messages.json`."""

# mypy: ignore-errors

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from uuid import UUID

from celery import Celery

from tests.compat.golden.app import URL, add, app, echo, fail, failed
from tests.compat.golden.peer import sent

TASK_ID = "719f19a5-0000-4000-8000-000000000001"


def messages() -> dict:
    """What one producer call puts on the lists."""
    calls = {**plain_calls(), **option_calls(), **encoding_calls()}
    found = {name: sent(name, call) for name, call in calls.items()}
    return {"messages": {name: entries for name, entries in found.items() if entries}}


def plain_calls() -> dict[str, Callable[[], object]]:
    tags = {
        "datetime": datetime(2026, 11, 22, 8, 6, 45, 739516, tzinfo=UTC),
        "naive_datetime": datetime(2026, 11, 22, 8, 6, 45),
        "date": date(2026, 11, 22),
        "time": clock_time(8, 6, 45),
        "decimal": Decimal("1.50"),
        "uuid": UUID(int=5),
        "bytes": b"text",
        "bytes_utf8": "grün".encode(),
        "base64": b"\xff\x00",
        "tuple": (1, (2, 3)),
        "nan": float("nan"),
        "infinity": float("inf"),
        "int_key": {1: "one"},
        "text": 'grün 🥕 \x00 " \\ \u2028',
        "big": 2**70,
        "float": 1e-7,
        "none": None,
        "true": True,
    }
    return {
        "plain": lambda: add.delay(2, 3),
        "kwargs": lambda: add.delay(x=2, y=3),
        "json_type_tags": lambda: echo.apply_async(kwargs=tags),
        "long_arguments": lambda: echo.delay("x" * 5000, list(range(500))),
        "send_task": lambda: app.send_task("other.unknown", args=[1], kwargs={"a": 2}),
        "task_id": lambda: add.apply_async((2, 3), task_id=TASK_ID),
        "protocol_1": lambda: with_conf({"task_protocol": 1}, lambda other: other.send_task("golden.add", (2, 3))),
        "protocol_1_options": lambda: with_conf(
            {"task_protocol": 1},
            lambda other: other.send_task(
                "golden.add", (2, 3), countdown=60, expires=120, link=add.s(1), time_limit=9, soft_time_limit=8
            ),
        ),
    }


def option_calls() -> dict[str, Callable[[], object]]:
    eta = datetime(2036, 11, 22, 8, 6, 45, 739516, tzinfo=UTC)
    eta_naive = eta.replace(tzinfo=None)
    naive = {"enable_utc": False, "timezone": "Europe/Berlin"}
    return {
        "countdown": lambda: add.apply_async((2, 3), countdown=3600),
        "eta": lambda: add.apply_async((2, 3), eta=eta),
        "eta_text": lambda: app.send_task("golden.add", (2, 3), eta=eta.isoformat()),
        "eta_not_utc": lambda: with_conf(naive, lambda other: other.send_task("golden.add", (2, 3), eta=eta_naive)),
        "expires_seconds": lambda: add.apply_async((2, 3), expires=600),
        "expires_datetime": lambda: add.apply_async((2, 3), expires=eta + timedelta(hours=1)),
        **{f"priority_{p}": lambda p=p: add.apply_async((2, 3), priority=p) for p in (0, 1, 3, 5, 6, 9)},
        "queue": lambda: add.apply_async((2, 3), queue="other"),
        "exchange_and_routing_key": lambda: add.apply_async((2, 3), exchange="celery", routing_key="celery"),
        "headers": lambda: echo.apply_async((1,), headers={"tenant": "acme", "nested": {"a": [1]}}),
        "stamped": lambda: stamped(),
        "link": lambda: add.apply_async((2, 3), link=add.s(10)),
        "link_list": lambda: add.apply_async((2, 3), link=[add.s(10), echo.si("done").set(queue="other")]),
        "link_error": lambda: fail.apply_async((2,), link_error=failed.s()),
        "link_and_link_error": lambda: add.apply_async((2, 3), link=add.s(1), link_error=[echo.s(1), echo.s(2)]),
        "ignore_result": lambda: add.apply_async((2, 3), ignore_result=True),
        "time_limits": lambda: add.apply_async((2, 3), time_limit=60, soft_time_limit=50.5),
        "shadow": lambda: add.apply_async((2, 3), shadow="nice.name"),
        "reply_to": lambda: add.apply_async((2, 3), reply_to="my-replies"),
        "argsrepr": lambda: add.apply_async((2, 3), argsrepr="(***)", kwargsrepr="{***}"),
        "not_persistent": lambda: add.apply_async((2, 3), delivery_mode=1),
        "retries": lambda: add.apply_async((2, 3), retries=2),
        "root_and_parent": lambda: add.apply_async((2, 3), root_id="the-root", parent_id="the-parent"),
    }


def encoding_calls() -> dict[str, Callable[[], object]]:
    payload = (2, "grün", [1.5, None], {"k": [True]})
    serializers = ("json", "pickle", "yaml", "msgpack")
    compressions = ("gzip", "zlib", "bzip2", "lzma", "zstd")
    return {
        **{f"serializer_{s}": lambda s=s: echo.apply_async(payload, serializer=s) for s in serializers},
        **{f"compression_{c}": lambda c=c: echo.apply_async(payload, compression=c) for c in compressions},
        "pickle_objects": lambda: echo.apply_async((UUID(int=5), {1, 2}), serializer="pickle"),
        "pickle_gzip": lambda: echo.apply_async(payload, serializer="pickle", compression="gzip"),
        "msgpack_zstd": lambda: echo.apply_async(payload, serializer="msgpack", compression="zstd"),
        "yaml_gzip": lambda: echo.apply_async(payload, serializer="yaml", compression="gzip"),
    }


def stamped() -> None:
    signature = add.s(2, 3)
    signature.stamp(tenant="acme", many=["a", "b"])
    signature.apply_async()


def with_conf(conf: dict, call: Callable[[Celery], object]) -> None:
    """Sends from a second app with these settings, for some are read only once."""

    other = Celery("golden-other", broker=URL, backend=URL, set_as_current=False)
    other.conf.update(conf)
    call(other)
