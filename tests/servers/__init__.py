"""Private servers for the tests: own port, own directory, own process, ended by its own pid.

Knows nothing of Celeriac. Used through the fixtures of conftest.py, or directly by fault tests.
"""

from __future__ import annotations

from tests.servers.base import HOST, Server, eventually, free_port, promptly, tls_files, wait_until, within
from tests.servers.pgbouncer import PgBouncerServer, pgbouncer_program
from tests.servers.postgres import PostgresServer, postgres_programs
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_sentinel import RedisSentinels

__all__ = [
    "HOST",
    "PgBouncerServer",
    "PostgresServer",
    "RabbitServer",
    "RedisCluster",
    "RedisSentinels",
    "RedisServer",
    "Server",
    "eventually",
    "free_port",
    "pgbouncer_program",
    "postgres_programs",
    "promptly",
    "tls_files",
    "wait_until",
    "within",
]
