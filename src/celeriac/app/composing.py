"""What a task contributes to workflows: its signatures, and its word about the one it runs in. A base of ``Task``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, ParamSpec, TypeVar, cast

from celeriac.app.replace import replacement, run_instead
from celeriac.app.retry import signature_from_request
from celeriac.canvas import Signature, chunks, xmap, xstarmap

__all__ = ["Composing"]

P = ParamSpec("P")
R = TypeVar("R")


class Composing(Generic[P, R]):
    """Signatures of a task; ``replace`` and ``add_to_chord`` from inside it."""

    app: Any
    request: Any
    backend: Any

    _app: Any = None

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[R]:
        """A signature of this task: ``signature(args, kwargs, options, immutable=…)``."""
        starkwargs.setdefault("app", self._app)
        return Signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A signature with these arguments; the task before it in a chain may add more in front."""
        return Signature(self, args, kwargs, app=self._app)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """A signature with exactly these arguments, whatever the task before it returns."""
        return Signature(self, args, kwargs, immutable=True, app=self._app)

    def map(self, it: Iterable[Any]) -> xmap:
        """One task that calls this one with each item, and returns the list of results."""
        return xmap(self.s(), it, app=self._app)

    def starmap(self, it: Iterable[Any]) -> xstarmap:
        """One task that calls this one with the arguments in each item, and returns the list of results."""
        return xstarmap(self.s(), it, app=self._app)

    def chunks(self, it: Iterable[Any], n: int) -> chunks:
        """One task for each ``n`` items, that calls this one with the arguments in each of them."""
        return chunks(self.s(), it, n, app=self._app)

    def signature_from_request(
        self, request: Any = None, args: Any = None, kwargs: Any = None, queue: str | None = None, **options: Any
    ) -> Signature[R]:
        """A signature that would send the current message once more."""
        request = self.request if request is None else request
        return cast("Signature[R]", signature_from_request(self, request, args, kwargs, queue, options))

    subtask_from_request = signature_from_request

    # ------------------------------------------------------------ from inside

    def replace(self, sig: Signature[Any]) -> Any:
        """Do ``sig`` instead: it takes over the id, callbacks, the place in a chord and the rest of the chain. A group
        is replaced by the list of its results. ``return self.replace(…)``.

        Raises ``Ignore``, which ends this attempt (eager: returns the result). Raises ``ImproperlyConfigured`` for an
        empty chain and for a part of a chord.
        """
        return self.on_replace(replacement(self.request, sig, self.app))

    def on_replace(self, sig: Signature[Any]) -> Any:
        """For subclasses, to be called by them: send the prepared replacement."""
        return run_instead(self.request, sig)

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Add ``sig`` to the header of the chord that this task is part of. It is sent when this attempt has succeeded,
        in the same step in which the chord hears of both, so that a crash adds nothing twice; returns its result.

        ``lazy`` leaves sending to the caller, and returns the signature. Its result comes after those that are there.
        Raises ``ValueError`` outside of a chord.
        """
        request = self.request
        if not request.chord:
            raise ValueError("the current task is no member of a chord")
        sig.set(group_id=request.group, chord=request.chord, root_id=request.root_id)
        result = sig.freeze()
        request.added.append(None if lazy else sig)
        return sig if lazy else result
