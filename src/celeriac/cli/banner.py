"""What a worker prints when it starts."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from celeriac import __version__
from celeriac.client import resolver

if TYPE_CHECKING:
    from celeriac.supervisor.start import Node

__all__ = ["banner"]


def banner(node: Node, app_name: str | None, *, tasks: bool = False) -> str:
    """A few lines about the node; ``tasks`` lists the tasks it knows. Passwords are masked."""
    app, options = node.app, node.options
    broker, results = app.broker_url, app.backend_url
    rows = [
        ("app", app_name or app.main or "default"),
        ("broker", shown(broker)),
        ("results", "disabled" if not results else "the same" if results == broker else shown(results)),
        ("pool", _pool(options)),
        ("queues", ", ".join(options.queues)),
    ]
    if options.events:
        rows.append(("events", "on"))
    lines = [f"{node.hostname}  celeriac {__version__}, Python {platform.python_version()}", ""]
    lines += [f"  {name:<8} {text}" for name, text in rows]
    if tasks:
        names = sorted(name for name in app.tasks if not name.startswith("celery."))
        lines += ["", "  [tasks]", *(f"  . {name}" for name in names)]
    return "\n".join(lines) + "\n"


def shown(url: str) -> str:
    """A URL without its password; for SQLite the path of the file."""
    if url.startswith("sqlite:"):
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(url).path)
        # sqlite:///relative and sqlite:////absolute, as SQLAlchemy writes them.
        return os.path.abspath(path[1:] if path.startswith("//") else path.lstrip("/")) if path.strip("/") else url
    return resolver.mask(url)


def _pool(options: Any) -> str:
    count = options.concurrency
    what = {"prefork": "child" if count == 1 else "children", "threads": "thread" if count == 1 else "threads"}
    size = f", {count} {what[options.pool]}" if options.pool in what else ""
    return f"{options.pool}{size}"
