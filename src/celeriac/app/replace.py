"""``Task.replace``: another signature takes over a task's id and everything that follows it."""

from __future__ import annotations

from typing import Any

from celeriac.canvas import Signature, maybe_signature
from celeriac.canvas.signatures import as_list
from celeriac.canvas.steps import is_chain, is_chord, is_group
from celeriac.exceptions import Ignore, ImproperlyConfigured
from celeriac.model.ledger import LOCK

__all__ = ["Replaced", "replacement", "run_instead"]


class Replaced(Ignore):
    """Ends the attempt of a task that was replaced: whoever replaces it goes on under its id."""


def replacement(request: Any, sig: Any, app: Any) -> Any:
    """``sig`` with the id, callbacks, chord and rest of the chain of ``request``.

    Raises ``ImproperlyConfigured`` for an empty chain and for a part of a chord.
    """
    if request.added:
        raise ImproperlyConfigured("a task that has added to its chord cannot be replaced: add in the replacement")
    if "chord" in sig.options:
        raise ImproperlyConfigured("a signature that replaces a task must not be part of a chord")
    if is_chain(sig) and not sig.tasks:
        raise ImproperlyConfigured("a task cannot be replaced with an empty chain")
    # A copy: who keeps a signature may replace with it again, under another id.
    sig = _one_result(sig.clone(), app)
    for callback in request.callbacks or ():
        sig.link(callback)
    for errback in request.errbacks or ():
        sig.link_error(errback)
    if is_chain(sig) and "link" in sig.options:
        # On the last step itself: what is appended below comes after it.
        sig.tasks[-1].extend_list_option("link", sig.options.pop("link"))
    sig.freeze(request.id)
    lock = request.get(LOCK)
    if lock is not None:
        # It goes on under the task's id, so whoever ends under that id frees the lock.
        last = _last(sig)
        last.set(headers={**(last.options.get("headers") or {}), LOCK: lock})
    nesting = (request.replaced_task_nesting or 0) + 1
    sig.set(
        chord=request.chord,
        group_id=request.group,
        group_index=request.group_index,
        root_id=request.root_id,
        replaced_task_nesting=nesting,
    )
    for step in as_list(sig.tasks) if is_chain(sig) else ():
        step.set(replaced_task_nesting=nesting)
    for following in reversed(request.chain or ()):
        step = maybe_signature(following, app=app, clone=True)
        step.set(replaced_task_nesting=nesting)
        sig = sig | step
    return sig


def _last(sig: Any) -> Any:
    """The part of a signature that has its id."""
    while is_chain(sig) or is_chord(sig):
        sig = sig.tasks[-1] if is_chain(sig) else sig.body
    return sig


def _one_result(sig: Any, app: Any) -> Any:
    """A group has no result that could be the task's: the list of its results becomes one."""
    collect = app.tasks["celery.accumulate"].s(index=0)
    if is_group(sig):
        return sig | collect
    if is_chain(sig) and is_group(sig.tasks[-1]):
        sig = sig.clone()
        sig.tasks[-1] = sig.tasks[-1] | collect
    return sig


def run_instead(request: Any, sig: Signature[Any]) -> Any:
    """Raise ``Replaced``; the replacement is sent in the step that ends this attempt, so that a crash sends nothing
    twice. When the task runs eagerly, run it here and return its result."""
    if request.is_eager:
        return sig.apply().get()
    request.sends.append(sig)
    raise Replaced("Replaced by new task")
