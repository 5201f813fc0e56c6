"""Bytes that no honest producer writes, as entries of a queue. Each says how it must end."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Canary", "Poison", "envelope", "poisons"]

LONE = "\ud800"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """One entry: ``state`` is what a caller finds under ``id`` afterwards, None where there is no id to look under."""

    name: str
    data: bytes
    id: str = ""
    state: str | None = None


class Canary:
    """A pickle that makes a file when somebody loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def envelope(
    name: str,
    *,
    body: bytes = b'[[1, 1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
    task: Any = "faults.work",
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    **parts: Any,
) -> bytes:
    """An envelope as kombu writes it, but for what is given."""
    head = {"lang": "py", "task": task, "id": name, "retries": 0, "timelimit": [None, None], "root_id": name}
    proper = {
        "correlation_id": name,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": f"tag-{name}",
    }
    whole = {
        "body": _base64(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**head, **(headers or {})},
        "properties": {**proper, **(properties or {})},
        **{key.replace("_", "-"): value for key, value in parts.items()},
    }
    return json.dumps(whole).encode()


def _nested(depth: int) -> bytes:
    return b"[[" + b"[" * depth + b"]" * depth + b'], {}, {"callbacks": null}]'


def _not_envelopes() -> Iterator[tuple[str, bytes]]:
    good = envelope("cut-off")
    yield "empty", b""
    yield "nul", b"\0"
    yield "truncated", good[: len(good) // 2]
    yield "without last byte", good[:-1]
    yield "invalid utf-8", good.replace(b"faults.work", b"faults.\xff\xfe")
    yield "binary", bytes(range(256))
    yield "number", b"17"
    yield "null", b"null"
    yield "list", b"[]"
    yield "text", b'"hello"'
    yield "empty object", b"{}"
    yield "nested list", b"[" * 100_000
    yield "nested objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield (
        "headers are a list",
        envelope("x", headers=None)
        .replace(b'"headers": {', b'"headers": [{')
        .replace(b'}, "properties"', b'}], "properties"'),
    )
    yield "body is a number", json.dumps({**json.loads(good), "body": 17}).encode()
    yield "body is no base64", json.dumps({**json.loads(good), "body": "%%%"}).encode()
    yield "no id", envelope("x", headers={"id": None})
    yield "id is a number", envelope("x", headers={"id": 17})
    yield "id is a dict", envelope("x", headers={"id": {"$ne": 1}})
    yield "id is empty", envelope("x", headers={"id": ""})
    yield "id is a lone surrogate", envelope("x", headers={"id": LONE})
    yield "task is a list", envelope("x", task=["faults.work"])
    yield "task is a lone surrogate", envelope("x", task=LONE)
    yield (
        "protocol 1, no task",
        envelope("x", body=b'{"id": "p1"}', headers={}).replace(b'"task": "faults.work", ', b""),
    )
    yield "protocol 1, a list", envelope("x", body=b"[1, 2]", headers={}).replace(b'"task": "faults.work", ', b"")
    yield "eta is no time", envelope("bad-eta", headers={"eta": "tomorrow"})
    yield "eta is a number", envelope("bad-eta-2", headers={"eta": 1e308})
    yield "expires is a list", envelope("bad-expires", headers={"expires": []})
    yield "timelimit is a text", envelope("bad-limit", headers={"timelimit": "soon"})
    yield "timelimit is NaN", envelope("bad-nan", headers={"timelimit": [float("nan"), None]})
    yield "soft limit is NaN", envelope("bad-nan-2", headers={"timelimit": [None, float("nan")]})
    yield "limits are negative", envelope("bad-negative", headers={"timelimit": [-5, -5]})
    yield "retries is a text", envelope("bad-retries", headers={"retries": "many"})
    yield "retries is huge", envelope("bad-retries-2", headers={"retries": "MANY"}).replace(b'"MANY"', b"7" * 6000)
    yield "priority is a dict", envelope("bad-priority", properties={"priority": {}})


def _refused(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Envelopes that can be read, with a body that cannot, or must not be."""
    pickled = pickle.dumps(Canary(canary))
    bomb = zlib.compress(b"[" + b" " * 200_000_000 + b"]", 9)
    yield (
        "pickle",
        envelope(
            "refused-pickle", body=pickled, content_type="application/x-python-serialize", content_encoding="binary"
        ),
    )
    yield "pickle as json", envelope("refused-disguise", body=pickled)
    yield (
        "yaml",
        envelope("refused-yaml", body=b"!!python/object/apply:os.getpid []", content_type="application/x-yaml"),
    )
    yield "unknown type", envelope("refused-type", content_type="application/x-nobody")
    yield "type is not text", envelope("refused-encoding", content_encoding="klingon", content_type="text/plain")
    yield "unknown compression", envelope("refused-compression", headers={"compression": "application/x-nobody"})
    yield "compression is a number", envelope("refused-number", headers={"compression": 17})
    yield "no zlib", envelope("refused-zlib", headers={"compression": "application/x-gzip"})
    yield "bomb", envelope("refused-bomb", body=bomb, headers={"compression": "application/x-gzip"})
    yield "truncated body", envelope("refused-truncated", body=b'[[1, 2], {"a"')
    yield "invalid utf-8 in the body", envelope("refused-utf8", body=b'[["\xff"], {}, {}]')
    yield "body is a number", envelope("refused-body", body=b"17")
    yield "body is a dict", envelope("refused-dict", body=b'{"a": 1}')
    yield "args is a number", envelope("refused-args", body=b"[17, {}, {}]")
    yield "kwargs is a list", envelope("refused-kwargs", body=b"[[1, 1], [3], {}]")
    yield "embed is a text", envelope("refused-embed", body=b'[[1, 1], {}, "x"]')
    yield "chain is a number", envelope("refused-chain", body=b'[[1, 1], {}, {"chain": 5}]')
    yield "callbacks of numbers", envelope("refused-callbacks", body=b'[[1, 1], {}, {"callbacks": [1]}]')
    yield "chord is a list", envelope("refused-chord", body=b'[[1, 1], {}, {"chord": [1]}]')
    yield "6,000 digits", envelope("refused-digits", body=b"[[" + b"7" * 6000 + b", 1], {}, {}]")
    yield "200 levels", envelope("refused-200-levels", body=_nested(200))
    yield "100,000 levels", envelope("refused-100000-levels", body=_nested(100_000))


def _failing() -> Iterator[tuple[str, bytes]]:
    """Proper messages whose task cannot do with them."""
    yield "too few arguments", envelope("fails-few", body=b"[[1], {}, {}]")
    yield "too many arguments", envelope("fails-many", body=b"[[1, 2, 3, 4], {}, {}]")
    yield "unknown keyword", envelope("fails-keyword", body=b'[[1, 1], {"\\u0000\\n[CRITICAL]": 1}, {}]')
    yield "wrong types", envelope("fails-types", body=b'[[1, "soon"], {}, {}]')
    yield "chain of nonsense", envelope("fails-chain", body=b'[[1, 1], {}, {"chain": [{"nonsense": 1}]}]')
    yield "callback of nonsense", envelope("fails-callback", body=b'[[1, 1], {}, {"callbacks": [{"task": 7}]}]')
    yield "unknown task", envelope("fails-unknown", task="nobody.knows")
    yield "task of control characters", envelope("fails-control", task="no\x00body\r\n[CRITICAL] forged\x1b[31m")
    yield "builtin as task", envelope("fails-builtin", task="os.system", body=b'[["true"], {}, {}]')


def _passing() -> Iterator[tuple[str, bytes]]:
    """Odd, but nothing stands against running them."""
    yield "id of control characters", envelope("pass\x00\r\n[CRITICAL] forged")
    yield "lone surrogate as argument", envelope("pass-surrogate", body=b'[["\\ud800", 1], {}, {}]')
    yield "limits are huge", envelope("pass-limits", headers={"timelimit": [1e308, 1e308]})
    yield "limits are infinite", envelope("pass-infinite", headers={"timelimit": [float("inf"), float("inf")]})
    yield "nan", envelope("pass-nan", body=b"[[NaN, 1], {}, {}]")
    yield (
        "protocol 1",
        envelope(
            "x", body=b'{"id": "pass-protocol-1", "task": "faults.work", "args": [1, 1], "kwargs": {}}', headers={}
        ).replace(b'"task": "faults.work", "id": "x", ', b""),
    )
    yield "foreign mark", envelope("pass-mark", headers={"celeriac": "nonsense"})
    yield "strange marks", envelope("pass-marks", headers={"celeriac": {"crashes": "many", "parked_until": []}})
    yield "marks that are no text", envelope("pass-marks-text", headers={"celeriac": {"judged": LONE}})
    yield "names of marks that are no text", envelope("pass-marks-name", headers={"celeriac": {LONE: 1}})


def _id(data: bytes) -> str:
    whole = json.loads(data)
    if "task" not in whole["headers"]:
        return str(json.loads(base64.b64decode(whole["body"]))["id"])
    return str(whole["headers"]["id"])


def poisons(canary: Path) -> Iterator[Poison]:
    """All of them; the pickled ones would make the file ``canary``."""
    for name, data in _not_envelopes():
        yield Poison(name=name, data=data)
    for group, state in ((_refused(canary), "FAILURE"), (_failing(), "FAILURE"), (_passing(), "SUCCESS")):
        for name, data in group:
            yield Poison(name=name, data=data, id=_id(data), state=state)
