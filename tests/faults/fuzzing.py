"""What a fuzzer writes where others are to read: mutated envelopes, records, requests; bytes of all kinds."""

from __future__ import annotations

import base64
import bz2
import importlib.util
import json
import lzma
import pickle
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from celeriac.codec.compression import compress, encoders
from tests.faults.poison import Canary, envelope

__all__ = ["bombs", "envelopes", "generated", "junk", "pickled", "records", "requests"]

T = TypeVar("T")

_DEEP: Any = None
for _ in range(400):
    _DEEP = [_DEEP]
#: Values of a wrong type, size or depth, put where something else is expected.
ODD: list[Any] = [
    None, True, 0, -1, 17, 2**63, 10**25, 1e308, float("nan"), float("inf"), "", "x", "\x00", "\n[CRITICAL] forged",
    "\ud800", "x" * 100_000, [], [None], {}, {"": {}}, {"$ne": 1}, ["a", ["b"]], _DEEP, {"__type__": "nobody"},
    {"__type__": "uuid", "__value__": 5}, {"__type__": [], "__value__": {}}, {"__type__": "decimal", "__value__": "x"},
]  # fmt: skip
HEADERS = (
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "root_id", "parent_id",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
    "compression", "celeriac", "redelivered", "celeriac_signature", "own",
)  # fmt: skip
PROPERTIES = (
    "correlation_id", "reply_to", "delivery_mode", "delivery_info", "priority", "body_encoding", "delivery_tag",
)  # fmt: skip
PARTS = ("body", "content-encoding", "content-type", "headers", "properties")
TYPES = (
    "application/json", "application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "pickle",
    "application/x-nobody", "text/plain", "application/data", "", "auth",
)  # fmt: skip


def generated(strategy: st.SearchStrategy[T], count: int, rng: Random) -> list[T]:
    """So many different values, as ``--seed`` says. They are made before they are used: a live node is no test to be
    repeated by Hypothesis."""
    found: list[T] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
        database=None,
    )
    @seed(rng.randrange(2**32))
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


def pickled(canary: Path) -> bytes:
    """Makes the file when somebody loads it."""
    return pickle.dumps(Canary(canary))


@cache
def bombs() -> list[bytes]:
    """Envelopes with 64 MiB of JSON in them, by each codec."""
    data = b"[" + b" " * (64 * 1024 * 1024) + b"]"
    packed = [
        ("application/x-gzip", zlib.compress(data, 9)),
        ("application/x-bz2", bz2.compress(data)),
        ("application/x-lzma", lzma.compress(data, preset=0)),
    ]
    if importlib.util.find_spec("zstandard"):
        packed.append(("application/zstd", compress(data, "zstd")[0]))
    return [envelope(f"bomb-{kind}", body=body, headers={"compression": kind}) for kind, body in packed]


def junk() -> st.SearchStrategy[bytes]:
    """Bytes of all kinds, JSON of the wrong shape among them."""
    values = st.recursive(st.sampled_from(ODD), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
    return st.one_of(
        st.binary(max_size=200),
        st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
        values.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"7" * 6000, b"\xff\xfe", b"null", b"NaN", b'"\\ud800"']),
    )


@st.composite
def envelopes(draw: st.DrawFn, canary: Path) -> bytes:
    """An envelope with something wrong in it, or none. The task of an intact one is ``faults.work``."""
    whole = json.loads(envelope(f"fuzz-{draw(st.integers(0, 2**63))}"))
    match draw(st.integers(0, 8)):
        case 0:
            return draw(junk())
        case 1 | 2 | 3:
            whole["headers"][draw(st.sampled_from(HEADERS))] = draw(st.sampled_from(ODD))
        case 4:
            whole["properties"][draw(st.sampled_from(PROPERTIES))] = draw(st.sampled_from(ODD))
        case 5:
            whole[draw(st.sampled_from(PARTS))] = draw(st.sampled_from(ODD))
        case 6:
            body = draw(junk() | st.just(pickled(canary)))
            whole["body"] = base64.b64encode(body).decode()
            whole["content-type"] = draw(st.sampled_from(TYPES))
            if draw(st.booleans()):
                whole["headers"]["compression"] = draw(st.sampled_from([*encoders(), "zlib", "x"]))
        case 7:
            part = draw(st.sampled_from([whole["headers"], whole["properties"], whole]))
            del part[draw(st.sampled_from(sorted(part)))]
        case _:
            embed = {draw(st.sampled_from(["callbacks", "errbacks", "chain", "chord"])): draw(st.sampled_from(ODD))}
            args, kwargs = draw(st.sampled_from([[1, 1], *ODD])), draw(st.sampled_from([{}, *ODD]))
            whole["body"] = base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode()
    text = json.dumps(whole).encode()
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = draw(st.sampled_from([text[:at], text[:at] + b"\0" + text[at + 1 :], text[:at] + b'{"id":' + text[at:]]))
    elif draw(st.integers(0, 9)) == 0:
        text = text.replace(b'"id":', b'"id": "first", "id":', 1)
    return text


@st.composite
def records(draw: st.DrawFn, canary: Path) -> bytes:
    """A result record with something wrong in it."""
    if draw(st.integers(0, 3)) == 0:
        return draw(junk() | st.just(pickled(canary)))
    bases = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "ValueError"]
    names = st.sampled_from([*bases, "eval", "system", "Popen", ""])
    modules = st.sampled_from(["builtins", "exceptions", "os", "subprocess", "celery.exceptions", "antigravity", ""])
    failure = {
        "exc_type": draw(names | st.sampled_from(ODD)),
        "exc_module": draw(modules | st.sampled_from(ODD)),
        "exc_message": draw(st.sampled_from([[f"touch {canary}"], [1], *ODD])),
    }
    record = {
        "status": draw(st.sampled_from(["SUCCESS", "FAILURE", "REVOKED", "RETRY", *ODD])),
        "result": draw(st.just(failure) | st.sampled_from(ODD)),
        "traceback": draw(st.sampled_from([None, *ODD])),
        "children": draw(st.sampled_from([[], *ODD])),
        "date_done": draw(st.sampled_from([None, "2030-01-01", *ODD])),
        "task_id": draw(st.sampled_from(["an id", *ODD])),
    }
    if draw(st.integers(0, 4)) == 0:
        del record[draw(st.sampled_from(sorted(record)))]
    return json.dumps(record).encode()


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A remote command with something wrong in it; none that stops a node or changes it for good."""
    if draw(st.integers(0, 3)) == 0:
        return draw(junk())
    odd = st.sampled_from(ODD)
    methods = ["ping", "hello", "conf", "query_task", "registered", "rate_limit", "report", "nobody", "active"]
    request = {
        "method": draw(st.sampled_from(methods) | odd),
        "arguments": draw(odd | st.dictionaries(st.sampled_from(["ids", "from_node", "taskinfoitems"]), odd)),
        "destination": draw(st.none() | odd),
        "pattern": draw(st.none() | odd | st.sampled_from(["[", "(", "*", "a{99999999999}"])),
        "matcher": draw(st.sampled_from([None, "glob", "pcre", 5])),
        "ticket": draw(odd),
        "reply_to": draw(
            odd | st.fixed_dictionaries({"exchange": st.just("reply.celery.pidbox") | odd, "routing_key": odd})
        ),
        "origin": draw(odd),
        "celeriac_signature": draw(odd),
    }
    return json.dumps(request).encode()
