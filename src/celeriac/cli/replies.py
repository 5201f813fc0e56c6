"""How answers of nodes are shown: as Celery's commands do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.cli.context import Context

__all__ = ["count", "merge", "pretty", "show", "to_json"]


def merge(replies: Any) -> dict[str, Any]:
    """Node -> answer, from a list of such dicts."""
    merged: dict[str, Any] = {}
    for reply in replies or ():
        merged.update(reply)
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


def show(context: Context, replies: Mapping[str, Any], *, body: bool = True) -> bool:
    """Print the answers, one node after the other; says whether none of them is an error."""
    good = True
    for node, answer in replies.items():
        state, text = pretty(answer)
        good = good and state == "OK"
        arrow = context.style("->", fg="blue", bold=True)
        color = "green" if state == "OK" else "red"
        if body or state != "OK":
            context.echo(f"{arrow}  {node}: {context.style(state, fg=color, bold=True)}")
            context.echo("\n".join(f"    {line}" for line in text.splitlines()))
        else:
            context.echo(f"{node}: {context.style(state, fg=color, bold=True)}")
    return good


def count(context: Context, replies: Mapping[str, Any]) -> None:
    """How many answered."""
    if not context.quiet:
        context.echo(f"\n{len(replies)} node{'' if len(replies) == 1 else 's'} online.")


def to_json(replies: Mapping[str, Any]) -> str:
    """For programs: one JSON object, node -> answer."""
    return json.dumps(replies, default=repr)
