"""Databases of applications on the private PostgreSQL of the tests."""

from __future__ import annotations

from tests.servers import PostgresServer

__all__ = ["empty_database"]


def empty_database(server: PostgresServer, name: str) -> str:
    """A new database with nothing in it, whoever is connected to an older one of that name; its URL."""
    server.start()
    server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    server.execute(f'CREATE DATABASE "{name}"')
    return server.url(database=name)
