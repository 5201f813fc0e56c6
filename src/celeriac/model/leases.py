"""What the loss of a lease says about a message: the rule by which every adapter restores. Pure."""

from __future__ import annotations

from msgspec import structs

from celeriac.model.message import Marks

__all__ = ["after_lost_lease"]


def after_lost_lease(marks: Marks, *, alone: bool) -> Marks:
    """Marks of a message whose lease ran out; ``alone``: its owner held nothing else at that moment.

    A loss names no culprit, so it is no crash: the message becomes suspect, and suspects are claimed alone. A suspect
    that was alone and was lost again is taken for the cause.
    """
    crashes = marks.crashes + 1 if alone and marks.suspect else marks.crashes
    return structs.replace(marks, crashes=crashes, suspect=True, expired_leases=marks.expired_leases + 1)
