"""The time zone of an app, from its settings."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

from celeriac.exceptions import ImproperlyConfigured

__all__ = ["zone_of"]


def zone_of(conf: Any) -> tzinfo:
    """The setting ``timezone``, else UTC, or local time without ``enable_utc``.

    Raises ``ImproperlyConfigured`` for a name that this machine does not know.
    """
    zone = conf.timezone
    if isinstance(zone, tzinfo):
        return zone
    if not zone:
        local = datetime.now(UTC).astimezone().tzinfo
        return UTC if conf.enable_utc or local is None else local
    if str(zone).upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(str(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ImproperlyConfigured(
            f"timezone={zone!r} is not known here: write a name such as 'Europe/Oslo', or install the package tzdata"
        ) from error
