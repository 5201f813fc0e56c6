"""Names of tasks: ``module.function``, with the app's name instead of ``__main__``."""

from __future__ import annotations

__all__ = ["gen_task_name"]


def gen_task_name(main: str | None, name: str, module: str | None) -> str:
    """The name of a task declared as ``name`` in ``module``.

    A script that runs as ``__main__`` is imported under another name by its workers, so the app's ``main`` stands in.
    """
    module = module or "__main__"
    if module == "__main__" and main:
        module = main
    return f"{module}.{name}" if module else name
