"""Settings of results and of the stores that keep them.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from datetime import timedelta

from celeriac.conf.setting import ANY, BOOL, DICT, FLOAT, INT, SECONDS, STR, Setting, no_effect

__all__ = ["ROWS"]

ALWAYS_RETRIES = no_effect("storing a result is always tried again, with backoff, until it succeeds")
RPC = no_effect("rpc:// sends results over the default exchange, as in Celery")
SQL = no_effect("results in a database have tables of their own: set result_backend to postgresql:// or sqlite://")

ROWS: tuple[Setting, ...] = (
    Setting(
        "result_backend",
        ANY,
        None,
        "Where results go, a URL; None: nowhere, or to the SQLite file. CELERY_RESULT_BACKEND in the environment wins.",
        old="CELERY_RESULT_BACKEND",
    ),
    Setting(
        "result_backend_transport_options",
        DICT,
        {},
        "Options of the adapter: global_keyprefix, retry_policy, result_chord_ordered …",
        old="CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
    ),
    Setting("result_serializer", STR, "json", "Serializer of results.", old="CELERY_RESULT_SERIALIZER"),
    Setting("result_compression", STR, None, "Compression of results.", old="CELERY_RESULT_COMPRESSION"),
    Setting(
        "result_extended",
        BOOL,
        False,
        "Store name, args, kwargs, worker, retries and queue with the result.",
        old="CELERY_RESULT_EXTENDED",
    ),
    Setting(
        "result_expires",
        SECONDS,
        timedelta(days=1),
        "Life time of a result; None or 0: for ever.",
        old="CELERY_TASK_RESULT_EXPIRES",
        optional=True,
    ),
    Setting(
        "result_failure_expires",
        SECONDS,
        None,
        "Life time of a failure, if another.",
        old="CELERY_RESULT_FAILURE_EXPIRES",
        status=no_effect("failures live as long as results, see result_expires"),
    ),
    Setting(
        "result_cache_max",
        INT,
        -1,
        "Results that a client caches; -1: none.",
        old="CELERY_MAX_CACHED_RESULTS",
        status=no_effect("clients keep no cache of results"),
        optional=True,
    ),
    Setting("result_exchange", STR, "celeryresults", "Exchange of results.", old="CELERY_RESULT_EXCHANGE", status=RPC),
    Setting(
        "result_exchange_type",
        STR,
        "direct",
        "Type of the exchange of results.",
        old="CELERY_RESULT_EXCHANGE_TYPE",
        status=RPC,
    ),
    Setting(
        "result_persistent",
        BOOL,
        None,
        "With rpc://: results that nobody has read yet outlive a restart of RabbitMQ.",
        old="CELERY_RESULT_PERSISTENT",
    ),
    Setting(
        "result_chord_expires",
        SECONDS,
        None,
        "Life time of a chord that waits, from the last of its tasks that has ended; None: as result_expires.",
        old="CELERY_RESULT_CHORD_EXPIRES",
    ),
    Setting(
        "result_chord_retry_interval",
        SECONDS,
        1.0,
        "Interval at which an incomplete chord is looked at.",
        old="CELERY_RESULT_CHORD_RETRY_INTERVAL",
        status=no_effect("the last part of a chord starts its body, nothing polls"),
    ),
    Setting(
        "result_chord_join_timeout",
        SECONDS,
        3.0,
        "Time in which the results of a chord have to be read.",
        old="CELERY_RESULT_CHORD_JOIN_TIMEOUT",
        status=no_effect("the parts of a chord are gathered in one read, nothing joins with a timeout"),
        optional=True,
    ),
    Setting(
        "result_backend_always_retry",
        BOOL,
        False,
        "Try again when a store fails for a while.",
        old="CELERY_RESULT_BACKEND_ALWAYS_RETRY",
        status=ALWAYS_RETRIES,
    ),
    Setting(
        "result_backend_max_retries",
        FLOAT,
        float("inf"),
        "Attempts to store a result.",
        old="CELERY_RESULT_BACKEND_MAX_RETRIES",
        status=ALWAYS_RETRIES,
        optional=True,
    ),
    Setting(
        "result_backend_base_sleep_between_retries_ms",
        INT,
        10,
        "First pause between two attempts to store a result, in milliseconds.",
        old="CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
        status=ALWAYS_RETRIES,
    ),
    Setting(
        "result_backend_max_sleep_between_retries_ms",
        INT,
        10000,
        "Longest pause between two attempts to store a result, in milliseconds.",
        old="CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
        status=ALWAYS_RETRIES,
    ),
    # SQL
    Setting(
        "database_url",
        STR,
        None,
        'Where results go, if result_backend is just "database".',
        old="CELERY_RESULT_DBURI",
        status=SQL,
    ),
    Setting(
        "database_engine_options",
        DICT,
        {"pool_pre_ping": True, "pool_recycle": 3600},
        "Options of the SQLAlchemy engine.",
        old="CELERY_RESULT_ENGINE_OPTIONS",
        status=SQL,
    ),
    Setting("database_engine_callback", ANY, None, "Called with the new SQLAlchemy engine.", status=SQL),
    Setting(
        "database_short_lived_sessions",
        BOOL,
        False,
        "One session for each operation.",
        old="CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
        status=SQL,
    ),
    Setting("database_table_schemas", DICT, None, 'Schemas of the tables "task" and "group".', status=SQL),
    Setting(
        "database_table_names",
        DICT,
        None,
        'Names of the tables "task" and "group".',
        old="CELERY_RESULT_DB_TABLENAMES",
        status=SQL,
    ),
    Setting("database_create_tables_at_setup", BOOL, True, "Create missing tables at start.", status=SQL),
)
