"""Workflow expressions that mean the same on either side, and what is seen of them: value, states, tree, signature.

Run with Celery by the console in the peer's interpreter, with Celeriac by the tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from tests.compat.project.tasks import SIDE

if SIDE == "theirs":
    from celery import chain, chord, group, signature
    from kombu.utils.json import dumps
else:
    from celeriac import chain, chord, group, signature
    from celeriac.codec.json import dumps

__all__ = ["EXPRESSIONS", "report"]

#: Name -> expression. `add(1, 2)` stands for the signature `add.s(1, 2)`, `add_si` for the immutable one, `later(...)`
#: for a call with arguments of its own.
EXPRESSIONS: Mapping[str, str] = {
    "task": "add(1, 2)",
    "or": "add(1, 2) | add(3)",
    "chain": "chain(add(1, 2), add(3), add(4))",
    "chain of one": "chain(add(1, 2))",
    "chain of a list": "chain([add(1, 2), add(3)])",
    "chain of chains": "chain(chain(add(1, 1), add(2)), chain(add(3), add(4)))",
    "chain or chain": "(add(1, 1) | add(2)) | (add(3) | add(4))",
    "immutable step": "chain(add(1, 1), add_si(5, 5), add(1))",
    "group": "group(add(1, 2), add(3, 4))",
    "group of a list": "group([add(i, i) for i in range(5)])",
    "group of a generator": "group(add(i, i) for i in range(3))",
    "group of one": "group(add(1, 2))",
    "empty group": "group([])",
    "group of groups": "group(group(add(1, 1), add(2, 2)), add(3, 3))",
    "group of chains": "group(chain(add(1, 1), add(1)), add(2, 2))",
    "group of a chain that ends in a group": "group(chain(add(1, 1), group(add(1), add(2))))",
    "group with a chord in it": "group(chord([add(1, 1), add(2, 2)], tsum()), add(1, 1))",
    "task or group": "add(1, 2) | group(add(3), add(4))",
    "group or task": "group(add(1, 1), add(2, 2)) | tsum()",
    "group or group": "group(add(1, 1), add(2, 2)) | group(ident(), tsum())",
    "group of one in a chain": "chain(add(1, 1), group(add(1)), add(2))",
    "group in front of a chain": "chain(group(add(1, 1), add(2, 2)), tsum(), add(10))",
    "group in a chain": "chain(add(1, 1), group(add(1), add(2)), tsum())",
    "group in a longer chain": "chain(add(1, 1), group(add(1), add(2)), tsum(), add(100), double())",
    "two groups in a chain": "chain(group(add(1, 1), add(2, 2)), group(ident(), ident()), tsum())",
    "chord": "chord([add(1, 1), add(2, 2)], tsum())",
    "chord of a group": "chord(group(add(1, 1), add(2, 2)), tsum())",
    "chord of one": "chord([add(1, 1)], tsum())",
    "chord without header": "chord([], tsum())",
    "chord or task": "chord([add(1, 1), add(2, 2)], tsum()) | add(5)",
    "chord with a chain for a body": "chord([add(1, 1), add(2, 2)], tsum() | add(1) | double())",
    "chord with a group for a body": "chord([add(1, 1), add(2, 2)], group(ident(), tsum()))",
    "chord in a chain": "chain(add(1, 1), chord([add(1), add(2)], tsum()), add(3))",
    "chord of chains": "chord([chain(add(1, 1), add(2)), add(3, 3)], ident())",
    "chord of chords": "chord([chord([add(1, 1), add(2, 2)], tsum()), add(5, 5)], ident())",
    "chord of chords of chords": (
        "chord([chord([chord([add(1, 1), add(2, 2)], tsum()), add(1, 0)], tsum()), add(5, 5)], ident())"
    ),
    "chord of a chain that ends in a group": "chord([chain(add(1, 1), group(add(1), add(2))), add(5, 5)], ident())",
    "chord of a chain that ends in a chord": (
        "chord([chain(add(1, 1), group(add(1), add(2)), tsum()), add(5, 5)], ident())"
    ),
    "chunks": "t['compat.add'].chunks([(i, i) for i in range(7)], 3)",
    "map": "t['compat.double'].map([1, 2, 3])",
    "starmap": "t['compat.add'].starmap([(1, 2), (3, 4)])",
    "starmap and sum": "t['compat.add'].starmap([(1, 2), (3, 4)]) | tsum()",
    "arguments for a chain": "later(add(2) | add(3), 10)",
    "arguments for a group": "later(group(add(1), add(2)), 10)",
    "arguments for a chord": "later(chord([add(1), add(2)], tsum()), 10)",
    "round trip": "signature(json.loads(dumps(chain(add(1, 1), group(add(1), add(2)), tsum()))))",
    "failing chain": "chain(add(1, 1), fail(), add(1), add(2))",
    "failing first step before a group": "chain(fail(), group(add(1), add(2)), tsum())",
    "failing group": "group(add(1, 1), fail())",
    "failing header": "chord([add(1, 1), fail()], tsum())",
    "failing header before a chain": "chord([fail(), add(1, 1)], tsum()) | add(5) | add(6)",
    "failing body": "chord([add(1, 1), add(2, 2)], fail())",
    "failing header in a chord": "chord([chord([fail(), add(1, 1)], tsum()), add(5, 5)], ident())",
    "replaced by a task": "replaced(add(1, 2))",
    "replaced by a chain": "replaced(chain(add(1, 2), add(3)))",
    "replaced by a group": "replaced(group(add(1, 2), add(3, 4)))",
    "replaced by a chord": "replaced(chord([add(1, 2), add(3, 4)], tsum()))",
    "replaced in a chain": "chain(replaced(chain(add(1, 2), add(3))), add(4))",
    "replaced by a group in a chain": "chain(replaced(group(add(1, 2), add(3, 4))), tsum())",
    "replaced in a header": "chord([replaced(chain(add(1, 2), add(3))), add(1, 1)], ident())",
    "replaced by a group in a header": "chord([replaced(group(add(1, 2), add(3, 4))), add(1, 1)], ident())",
    "added to a chord": "chord([added(1), add(1, 1)], tsum())",
    "stamped": "stamped(stamps(), x=1, y='a')",
    "stamped chain": "stamped(chain(add(1, 1), stamps()), x=1)",
    "stamped chord": "stamped(chord([stamps(), stamps(5)], ident()), x=1)",
    "results ignored in a header": "chord([add(1, 1).set(ignore_result=True), add(2, 2)], tsum())",
}


class _Call:
    """A signature and the arguments it is sent with."""

    def __init__(self, sig: Any, *args: Any) -> None:
        self.sig, self.args = sig, args


def _stamped(sig: Any, **stamps: Any) -> Any:
    sig.stamp(**stamps)
    return sig


def _names(app: Any) -> dict[str, Any]:
    names: dict[str, Any] = {
        "chain": chain,
        "chord": chord,
        "dumps": dumps,
        "group": group,
        "json": json,
        "later": _Call,
        "signature": lambda given: signature(given, app=app),
        "stamped": _stamped,
        "t": app.tasks,
    }
    for name in ("add", "double", "fail", "ident", "tsum", "stamps", "replaced", "added"):
        names[name] = app.tasks[f"compat.{name}"].s
        names[f"{name}_si"] = app.tasks[f"compat.{name}"].si
    return names


def report(app: Any, expression: str, timeout: float = 60.0) -> dict[str, Any]:
    """What there is to see of one expression."""
    made = eval(expression, _names(app))
    call = made if isinstance(made, _Call) else _Call(made)
    written = json.loads(dumps(call.sig))
    result = call.sig.apply_async(call.args or None)
    try:
        # The interval is that of Celery's groups, which look at their members half a second after they were sent.
        found: dict[str, Any] = {"value": result.get(timeout=timeout, interval=0.02)}
        _wait_for_parents(result, 0.5 if "ignore_result" in expression else 5.0)  # that parent is never there
    except Exception as error:  # noqa: BLE001 - whatever a task raised
        found = {"error": [type(error).__name__, _anonymous(str(error))]}
    return {**found, "tree": _tree(result), "signature": _plain(written)}


def _wait_for_parents(result: Any, seconds: float) -> None:
    """Celery sends the next step before it stores the result of this one, which may be there last."""
    deadline = time.monotonic() + seconds
    while (result := result.parent) is not None:
        while not result.ready() and time.monotonic() < deadline:
            time.sleep(0.01)


def _tree(result: Any, depth: int = 0) -> Any:
    """A result with what is before it and what it has sent, without ids."""
    if result is None or depth > 12:
        return None
    if hasattr(result, "results"):
        members = [_tree(each, depth + 1) for each in result.results]
        return {"group": members, "parent": _tree(result.parent, depth + 1)}
    state = result.state
    value = result.result
    return {
        "state": state,
        "value": _anonymous(repr(value)) if isinstance(value, Exception) else value,
        "parent": _tree(result.parent, depth + 1),
        "children": [_tree(each, depth + 1) for each in result.children or ()],
    }


def _anonymous(text: str) -> str:
    """Without task ids."""
    words = text.split()
    return " ".join("ID" if word.count("-") == 4 and len(word.strip("()'\"")) == 36 else word for word in words)


def _plain(value: Any) -> Any:
    """A signature as JSON, without what only one side writes."""
    if isinstance(value, dict):
        # Celery lists the names of stamps in the order of a set.
        value = {
            **value,
            **({"stamped_headers": sorted(value["stamped_headers"])} if "stamped_headers" in value else {}),
        }
        return {key: _plain(each) for key, each in value.items() if key != "chord_size"}
    return [_plain(each) for each in value] if isinstance(value, list) else value
