"""Answers of nodes as text, as Celery's commands show them."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from celeriac.codec.escape import one_line
from celeriac.exceptions import DuplicateNodenameWarning

__all__ = ["merge", "pretty", "to_json"]


def merge(replies: Any) -> dict[str, Any]:
    """Node -> answer, from a list of such dicts. Of nodes that share a name each is shown, and a warning says so."""
    merged: dict[str, Any] = {}
    count = Counter[str]()
    for reply in replies or ():
        for node, answer in reply.items():
            count[node] += 1
            merged[node if count[node] == 1 else f"{node} ({count[node]})"] = answer
    for node, number in count.items():
        if number > 1:
            told = f"{number} nodes answer as {one_line(node)}: start each under a name of its own, -n worker1@%h"
            warnings.warn(DuplicateNodenameWarning(told), stacklevel=2)
    return dict(sorted(merged.items()))


def pretty(value: Any) -> tuple[str, str]:
    """The state of an answer (OK, ERROR) and its text."""
    if isinstance(value, Mapping) and len(value) == 1 and "error" in value:
        return "ERROR", str(value["error"])
    if isinstance(value, Mapping) and len(value) == 1 and "ok" in value:
        return "OK", str(value["ok"])
    if isinstance(value, (list, tuple)):
        return "OK", "\n".join(_lines(value)) or "- empty -"
    if isinstance(value, Mapping):
        return "OK", json.dumps(value, indent=4, default=repr, ensure_ascii=False)
    return "OK", str(value)


def _lines(values: Any) -> list[str]:
    return [
        f"* {value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)}"
        for value in values
    ]


def to_json(replies: Mapping[str, Any]) -> str:
    """For programs: one JSON object, node -> answer."""
    return json.dumps(replies, default=repr)
