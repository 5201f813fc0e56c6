"""``@app.task(pydantic=True)``: arguments that are pydantic models are validated, a returned one is dumped.

pydantic is the user's; it is imported when a task asks for it. Called when a task is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, get_args, get_type_hints

from celeriac.exceptions import ImproperlyConfigured

__all__ = ["validating"]


def validating(app: Any, fun: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """``fun`` behind a wrapper that builds models from what the message held, by the annotations of ``fun``.

    Options: ``pydantic_strict``, ``pydantic_context``, ``pydantic_dump_kwargs``. Raises ``ImproperlyConfigured`` when
    pydantic is not installed.
    """
    try:
        base = import_module("pydantic").BaseModel
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(f"task {name!r} has pydantic=True, which needs: pip install pydantic") from error
    import inspect

    parameters = inspect.signature(fun)
    try:
        hints = get_type_hints(fun)
    except (NameError, AttributeError, TypeError):
        hints = dict(getattr(fun, "__annotations__", {}))
    models = {name: model for name, hint in hints.items() if (model := _model(hint, base)) is not None}
    returned = models.pop("return", None)
    strict = bool(options.get("pydantic_strict", False))
    context = {**(options.get("pydantic_context") or {}), "celery_app": app, "celery_task_name": name}
    dump = {"mode": "json", **(options.get("pydantic_dump_kwargs") or {})}

    @wraps(fun)
    def validated(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        for argument, value in bound.arguments.items():
            if argument in models and value is not None:
                bound.arguments[argument] = models[argument].model_validate(value, strict=strict, context=context)
        result = fun(*bound.args, **bound.kwargs)
        if returned is not None and isinstance(result, returned):
            return result.model_dump(**dump)
        return result

    return validated


def _model(hint: Any, base: type) -> Any:
    """The model class that an annotation names, also as ``Model | None``."""
    candidates = [part for part in get_args(hint) if part is not type(None)] or [hint]
    found = candidates[0] if len(candidates) == 1 else None
    return found if isinstance(found, type) and issubclass(found, base) else None
