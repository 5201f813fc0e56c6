"""How many children a node should have, judged by what waits and who works. Pure: looks come in, a number comes out.

Grows while tasks wait although every child works: by doubling, step by step, as each step must have come up before the
next. Shrinks to what was needed at most during a whole keep-alive, so neither a pause nor a peak makes it swing.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

__all__ = ["Bounds", "Look", "Scale", "scale"]


class Bounds(Struct, frozen=True, kw_only=True):
    """What the operator wants; times in seconds."""

    most: int
    fewest: int
    #: Tasks wait for so long before there are more children.
    patience: float = 0.75
    #: Children were too many for so long before they go.
    keepalive: float = 30.0


class Look(Struct, frozen=True, kw_only=True):
    """What was seen at one moment, in monotonic seconds."""

    at: float
    #: Messages ready in the queues, and the age of the oldest in seconds where the broker knows it.
    ready: int
    oldest: float | None = None
    #: Children that claim, and those among them that hold a task.
    up: int
    busy: int
    #: Tasks run since the node started: work between two looks counts as one busy child.
    done: int = 0


class Scale(Struct, frozen=True, kw_only=True):
    """What is known from the looks before."""

    wanted: int
    #: Since when tasks wait while all work; None: they do not.
    waiting_since: float | None = None
    #: How many worked at each look within the keep-alive, and when.
    needed: Sequence[tuple[float, int]] = ()
    #: The number is this since then.
    since: float = 0.0
    done: int = 0


def scale(before: Scale, look: Look, bounds: Bounds) -> Scale:
    """The next state; its ``wanted`` lies within the bounds."""
    worked = max(look.busy, 1 if look.done > before.done else 0)
    needed = [(at, count) for at, count in before.needed if at > look.at - bounds.keepalive]
    # One entry a second is enough, with the most of that second.
    if needed and look.at - needed[-1][0] < 1.0:
        needed[-1] = (needed[-1][0], max(needed[-1][1], worked))
    else:
        needed.append((look.at, worked))
    waits = look.ready > 0 and look.up >= before.wanted and look.busy >= look.up
    since = (before.waiting_since if before.waiting_since is not None else look.at) if waits else None
    after = replace(before, waiting_since=since, needed=needed, done=look.done)
    wanted = _number(after, look, bounds)
    if wanted == before.wanted:
        return after
    return replace(after, wanted=wanted, waiting_since=None, since=look.at)


def _number(now: Scale, look: Look, bounds: Bounds) -> int:
    within = min(max(now.wanted, bounds.fewest), bounds.most)
    if within != now.wanted:
        return within
    if now.waiting_since is not None:
        waited = look.at - now.waiting_since
        # One look is none: the oldest may be older than the last change of the number.
        if look.oldest is not None and waited > 0:
            waited = max(waited, min(look.oldest, look.at - now.since))
        if waited >= bounds.patience:
            return min(bounds.most, now.wanted + max(1, min(now.wanted, look.ready)))
        return now.wanted
    if look.at - now.since >= bounds.keepalive:
        peak = max(count for _, count in now.needed)
        return max(bounds.fewest, min(now.wanted, peak))
    return now.wanted
