"""What a bug report should say: versions, platform, settings without secrets."""

from __future__ import annotations

from typing import Any

__all__ = ["bugreport"]


def bugreport(app: Any) -> str:
    """A few lines of text about this installation and ``app``."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    from celeriac.client import resolver

    broker = resolver.mask(app.broker_url)
    results = resolver.mask(app.backend_url) if app.backend_url else "disabled"
    return "\n".join(
        (
            f"software -> {' '.join(f'{name}:{of(name)}' for name in ('celeriac', 'msgspec', 'click', 'hiredis'))}",
            f"python   -> {platform.python_implementation()} {platform.python_version()}",
            f"platform -> {platform.system()} {platform.release()} {platform.machine()}",
            f"loader   -> {type(app.loader).__module__}.{type(app.loader).__qualname__}",
            f"settings -> transport:{broker} results:{results}",
            "",
            app.conf.humanize(),
        )
    )
