"""Dead letters as text for people (two lines each, or all there is of one) and as JSON for programs.

What tasks and senders have put into a letter is anybody's: whatever could move a terminal's cursor is escaped, and
arguments under telling names are masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps
from typing import Any

from celeriac.codec.letters import Letter
from celeriac.codec.redaction import hides, masked
from celeriac.conf.masking import mask_url

__all__ = ["HEADER", "as_json", "details", "shown", "two_lines", "visible"]

_WIDTH = 80
HEADER = f"{'ID':36}  {'DIED (UTC)':16}  REASON"
Arguments = tuple[Sequence[Any], Mapping[str, Any]] | None


def visible(text: str) -> str:
    """On one line, with control characters (and those that change the direction of writing) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def two_lines(letter: Letter) -> tuple[str, str]:
    """Which one, when and why; and what it was. The id is never cut."""
    first = f"{visible(letter.id or letter.key):36}  {letter.died:%Y-%m-%d %H:%M}  {visible(letter.reason)}"
    what = visible(letter.exception or letter.detail)
    second = f"    {visible(letter.task) or '?'} in {visible(letter.queue)}" + (f": {what}" if what else "")
    return first, second if len(second) <= _WIDTH else second[: _WIDTH - 1] + "…"


def shown(arguments: Arguments, names: Iterable[str] = ()) -> Arguments:
    """Arguments without what is under telling names; ``names`` is ``redact_names``."""
    if arguments is None:
        return None
    (args, kwargs), hidden = arguments, hides(tuple(names))
    return masked(list(args), hidden, mask_url), masked(dict(kwargs), hidden, mask_url)


def details(letter: Letter, arguments: Arguments, names: Iterable[str] = ()) -> Iterator[str]:
    """All lines about one letter. ``arguments`` are masked here, as ``shown`` does."""
    args, kwargs = shown(arguments, names) or (None, None)
    unknown = "(cannot be decoded here)"
    lineage = [f"{name} {value}" for name, value in _lineage(letter) if value]
    rows = [
        ("key", letter.key),
        ("id", letter.id),
        ("task", letter.task),
        ("queue", letter.queue),
        ("died", f"{letter.died:%Y-%m-%d %H:%M:%S} UTC" + (f" on {letter.worker}" if letter.worker else "")),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("exception", letter.exception),
        ("attempts", _attempts(letter)),
        ("workflow", ", ".join(lineage)),
        ("message", f"{len(letter.raw)} bytes"),
        ("args", unknown if args is None else repr(args)),
        ("kwargs", unknown if kwargs is None else repr(kwargs)),
        ("malformed", letter.problem),
    ]
    for name, value in rows:
        if value:
            yield f"{name:10} {visible(value)}"
    if letter.traceback:
        yield ""
        yield from map(visible, letter.traceback.rstrip("\n").split("\n"))


def _attempts(letter: Letter) -> str:
    counts = (
        (letter.retries, "retried"),
        (letter.crashes, "crashed"),
        (letter.expired_leases, "lost its lease"),
        (letter.replays, "sent again from the dead letters"),
    )
    told = [f"{what} {'once' if number == 1 else f'{number} times'}" for number, what in counts if number]
    return ", ".join(told) or "one"


def _lineage(letter: Letter) -> tuple[tuple[str, str], ...]:
    return (
        ("root", letter.root_id if letter.root_id != letter.id else ""),
        ("parent", letter.parent_id),
        ("group", letter.group_id),
    )


def as_json(letter: Letter, **more: Any) -> str:
    """One JSON object on one line, in ASCII; ``more`` are further keys."""
    fields = {
        "key": letter.key,
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "reason": letter.reason,
        "detail": letter.detail,
        "exception": letter.exception,
        "traceback": letter.traceback,
        "worker": letter.worker,
        "died": letter.died.isoformat(),
        "retries": letter.retries,
        "crashes": letter.crashes,
        "expired_leases": letter.expired_leases,
        "replays": letter.replays,
        "root_id": letter.root_id,
        "parent_id": letter.parent_id,
        "group_id": letter.group_id,
        "bytes": len(letter.raw),
        "problem": letter.problem,
        **more,
    }
    return dumps(fields, default=repr)
