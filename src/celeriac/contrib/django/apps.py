"""The Django app of the outbox: a table, no models."""

from __future__ import annotations

from django.apps import AppConfig  # type: ignore[import-untyped]

__all__ = ["CeleriacConfig"]


class CeleriacConfig(AppConfig):  # type: ignore[misc]  # Django is not typed
    """``'celeriac.contrib.django'`` in INSTALLED_APPS."""

    name = "celeriac.contrib.django"
    label = "celeriac"
    verbose_name = "Celeriac"
