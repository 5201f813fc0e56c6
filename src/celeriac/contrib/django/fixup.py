"""Gets Django ready where a program imports an app's modules, and tells which packages may have tasks.

Every app calls ``fixup``; it does something only where ``DJANGO_SETTINGS_MODULE`` is set, as Celery's does.
"""

from __future__ import annotations

import os
from typing import Any

from celeriac import signals
from celeriac.exceptions import FixupWarning

__all__ = ["DjangoFixup", "fixup"]


class DjangoFixup:
    """``django.setup()`` before tasks are imported; tasks of the installed applications."""

    def __init__(self, app: Any) -> None:
        signals.import_modules.connect(self._set_up, sender=app)

    def _set_up(self, **_signal: Any) -> None:
        import django  # type: ignore[import-untyped]

        django.setup()

    def autodiscover_tasks(self) -> list[str]:
        """Names of the applications, for ``app.autodiscover_tasks()`` without arguments."""
        from django.apps import apps  # type: ignore[import-untyped]

        return [config.name for config in apps.get_app_configs()]


def fixup(app: Any) -> DjangoFixup | None:
    """The fixup of an app; None where no settings of Django are named, or Django is not there."""
    settings = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not settings:
        return None
    from importlib.util import find_spec

    if find_spec("django") is None:
        import warnings

        warnings.warn(
            FixupWarning(f"DJANGO_SETTINGS_MODULE is set to {settings!r}, but Django is not installed"), stacklevel=2
        )
        return None
    return DjangoFixup(app)
