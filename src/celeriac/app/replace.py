"""``Task.replace``: another signature takes over a task's id and everything that follows it."""

from __future__ import annotations

from typing import Any

from celeriac.canvas import Signature, chain, maybe_signature
from celeriac.canvas.signatures import as_list
from celeriac.exceptions import Ignore, ImproperlyConfigured

__all__ = ["replacement", "run_instead"]


def replacement(request: Any, sig: Signature[Any], app: Any) -> Any:
    """``sig`` with the id, callbacks, chord and rest of the chain of ``request``.

    Raises ``ImproperlyConfigured`` for an empty chain and for a part of a chord.
    """
    if "chord" in sig.options:
        raise ImproperlyConfigured("a signature that replaces a task must not be part of a chord")
    if isinstance(sig, chain) and not sig.tasks:
        raise ImproperlyConfigured("a task cannot be replaced with an empty chain")
    for callback in request.callbacks or ():
        sig.link(callback)
    for errback in request.errbacks or ():
        sig.link_error(errback)
    if isinstance(sig, chain) and "link" in sig.options:
        # On the last step itself: what is appended below comes after it.
        sig.tasks[-1].extend_list_option("link", sig.options.pop("link"))
    sig.freeze(request.id)
    nesting = (request.replaced_task_nesting or 0) + 1
    sig.set(
        chord=request.chord,
        group_id=request.group,
        group_index=request.group_index,
        root_id=request.root_id,
        replaced_task_nesting=nesting,
    )
    for step in as_list(sig.tasks) if isinstance(sig, chain) else ():
        step.set(replaced_task_nesting=nesting)
    for following in reversed(request.chain or ()):
        step = maybe_signature(following, app=app, clone=True)
        step.set(replaced_task_nesting=nesting)
        sig = sig | step
    return sig


def run_instead(request: Any, sig: Signature[Any]) -> Any:
    """Send the replacement and raise ``Ignore``; run it here when the task runs eagerly, and return its result."""
    if request.is_eager:
        return sig.apply().get()
    sig.delay()
    raise Ignore("Replaced by new task")
