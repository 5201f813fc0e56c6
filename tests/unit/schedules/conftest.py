"""An app at a standstill for schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from celeriac import Celery


class StoppedApp(Celery):
    """An app whose time a test sets."""

    at: datetime

    def now(self) -> datetime:
        return self.at.astimezone(self.timezone)


@pytest.fixture
def make_app() -> Callable[..., StoppedApp]:
    def make(at: datetime, **settings: Any) -> StoppedApp:
        app = StoppedApp(set_as_current=False, changes=settings)
        app.at = at
        return app

    return make
