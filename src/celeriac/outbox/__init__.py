"""Adapters to the application's own database, where messages wait for its commit: ``app.transaction()`` and its relays.

``connections.py`` finds the writer for a connection of the application, ``stores.py`` the store for a URL. Writers use
what the application has imported; nothing here imports a driver before it is needed. Knows no app and no broker.
"""

from __future__ import annotations

from celeriac.outbox.schema import ddl

__all__ = ["ddl"]
