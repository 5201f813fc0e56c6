"""The fixtures of the app's tests."""

from tests.unit.app.conftest import app, collecting, no_traces, sent

__all__ = ["app", "collecting", "no_traces", "sent"]
