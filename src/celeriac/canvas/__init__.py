"""Composing tasks: signatures, chains, groups, chords. Values that know how to send themselves through an app."""

from __future__ import annotations

from celeriac.canvas.chains import _chain, chain
from celeriac.canvas.chords import _chord, chord
from celeriac.canvas.groups import group
from celeriac.canvas.maps import chunks, xmap, xstarmap
from celeriac.canvas.signatures import Signature, maybe_signature, signature
from celeriac.canvas.stamping import StampingVisitor

__all__ = [
    "Signature",
    "StampingVisitor",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]

#: Celery's older names.
subtask = signature
maybe_subtask = maybe_signature
