"""``celery.app.control``: Celery's name for ``celeriac.client.control``. Only for imports of users."""

from __future__ import annotations

from celeriac.client.control import Control, Inspect

__all__ = ["Control", "Inspect"]
