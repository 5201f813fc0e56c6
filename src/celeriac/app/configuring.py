"""The part of the app that has settings: reading them, and what is told of it. A base of ``Celery`` only."""

from __future__ import annotations

import os
from datetime import UTC, datetime, tzinfo
from typing import Any

from celeriac import signals
from celeriac.app.periodic import periodic_entry
from celeriac.app.zone import zone_of
from celeriac.conf.settings import Settings
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Configuring"]


class Configuring:
    """Settings of an app."""

    #: Every setting, as an attribute or an item; read when first needed.
    conf: Settings
    #: Prefix of settings in the configuration object.
    namespace: str | None
    #: The configuration was read.
    configured: bool = False
    on_configure: Any
    on_after_configure: signals.Signal

    _config_source: Any
    _config_source_silent: bool
    _periodic: list[tuple[str, dict[str, Any]]]

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> Any:
        """Read settings from an object or the module that a string names, when they are needed; now with ``force``.

        ``silent``: a module that cannot be imported has no settings. ``namespace``: only names with that prefix.
        """
        self._config_source, self._config_source_silent = obj, silent
        self.namespace = namespace or self.namespace
        self.conf.config_from_object(obj, silent=silent, force=force, namespace=namespace)
        return self.conf if force else None

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> Any:
        """``config_from_object`` with the module that the environment variable names.

        Raises ``ImproperlyConfigured`` when the variable is not set, unless ``silent``.
        """
        name = os.environ.get(variable_name)
        if name:
            return self.config_from_object(name, silent=silent, force=force)
        if silent:
            return False
        raise ImproperlyConfigured(
            f"the environment variable {variable_name!r} is not set: set it to the name of a configuration module, "
            f'such as {variable_name}="proj.celeryconfig"'
        )

    def add_defaults(self, fun: Any) -> None:
        """Put settings above those of the configuration and below changes; a function is called when they are read."""
        self.conf.add_defaults(fun)

    def _before_configure(self) -> None:
        if isinstance(self.on_configure, signals.Signal):
            self.on_configure.send(sender=self)
        else:
            self.on_configure()

    def _after_configure(self) -> None:
        self.configured = True
        for key, entry in self._periodic:
            self._add_entry(key, entry)
        self._periodic.clear()
        self.on_after_configure.send(sender=self, source=self.conf)

    def either(self, default_key: str, *values: Any) -> Any:
        """The first of ``values`` that is not None, else the setting."""
        return next((value for value in values if value is not None), None) or self.conf.get(default_key)

    @property
    def timezone(self) -> tzinfo:
        """The zone of naive times and schedules."""
        return zone_of(self.conf)

    def now(self) -> datetime:
        """The current time, in the app's time zone."""
        return datetime.now(UTC).astimezone(self.timezone)

    def uses_utc_timezone(self) -> bool:
        """The app's time zone is UTC."""
        return self.timezone is UTC

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = None, name: str | None = None, **opts: Any
    ) -> str:
        """Add an entry to ``beat_schedule``; returns its key: ``name``, or the call as text."""
        key, entry = periodic_entry(schedule, sig, args, kwargs, name, opts)
        if self.configured:
            self._add_entry(key, entry)
        else:
            self._periodic.append((key, entry))
        return key

    def _add_entry(self, key: str, entry: dict[str, Any]) -> None:
        self.conf.beat_schedule = {**(self.conf.beat_schedule or {}), key: entry}
