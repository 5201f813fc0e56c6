"""``celery.utils.log``."""

from __future__ import annotations

from celeriac.app.log import get_logger, get_task_logger

__all__ = ["get_logger", "get_task_logger"]
