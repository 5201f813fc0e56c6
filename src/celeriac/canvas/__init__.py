"""Composing tasks: signatures and chains. Values that know how to send themselves through an app."""

from __future__ import annotations

from celeriac.canvas.chains import chain
from celeriac.canvas.signatures import Signature, maybe_signature, signature

__all__ = ["Signature", "chain", "maybe_signature", "maybe_subtask", "signature", "subtask"]

#: Celery's older names.
subtask = signature
maybe_subtask = maybe_signature
