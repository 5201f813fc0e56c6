"""``shell``: an interactive Python."""

from __future__ import annotations

import click

from celeriac.cli.context import Context, importing, pass_context

__all__ = ["shell"]


@click.command()
@click.option("-T", "--without-tasks", is_flag=True, help="Do not put the tasks into the namespace.")
@click.option("-P", "--python", is_flag=True, expose_value=False, hidden=True)
@pass_context
def shell(context: Context, without_tasks: bool) -> None:
    """Start an interactive Python with the app and its tasks.

    There are `app`, `celery` (the same), `Task`, `chain`, `signature`, and each task under its function's name.
    """
    import code

    from celeriac.app.task import Task
    from celeriac.canvas import chain, signature

    app = context.app
    with importing("cannot import the app's modules"):
        app.loader.import_default_modules()
    names = {"app": app, "celery": app, "Task": Task, "chain": chain, "signature": signature}
    if not without_tasks:
        tasks = {name.rpartition(".")[2]: task for name, task in app.tasks.items() if not name.startswith("celery.")}
        names = {**{name: task for name, task in tasks.items() if name.isidentifier()}, **names}
    banner = "" if context.quiet else f"{app!r}\nnames: {', '.join(sorted(names))}"
    code.interact(banner, local=names, exitmsg="")
