"""An application whose orders and tasks belong together, to be killed: ``python -m tests.faults.shop URL SEED``.

Each order is a transaction: a row with the id of its task, and the task. One in five is rolled back. Between the commit
and the next order it says nothing to anybody. The app is that of ``project.py``: its settings come by the environment.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
from typing import Any

import psycopg

from tests.faults.project import CONF, make_app

__all__ = ["connect", "main", "orders"]

_TABLE = "CREATE TABLE IF NOT EXISTS orders (task_id text PRIMARY KEY, number integer)"


def connect(url: str) -> Any:
    """A connection of the application's; the table is there."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30.0)
    else:
        connection = psycopg.connect(url)
    connection.execute(_TABLE)
    connection.commit()
    return connection


def orders(url: str) -> dict[str, int]:
    """Task ids and numbers of the orders that are there."""
    connection = connect(url)
    try:
        return dict(connection.execute("SELECT task_id, number FROM orders").fetchall())
    finally:
        connection.close()


def main(url: str, seed: str) -> None:
    """Take orders until killed."""
    rng = random.Random(seed)
    app = make_app(json.loads(os.environ[CONF]))
    work, connection = app.tasks["faults.work"], connect(url)
    mark = "?" if url.startswith("sqlite") else "%s"
    while True:
        number = rng.randrange(10**6)
        with app.transaction(connection):
            result = work.delay(number, 1)
            connection.execute(f"INSERT INTO orders VALUES ({mark}, {mark})", (result.id, number))
        if rng.random() < 0.2:
            connection.rollback()
        else:
            connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
