"""Settings of the broker, and of the Redis result store.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from celeriac.conf.setting import ANY, BOOL, DICT, FLOAT, INT, SECONDS, STR, Setting, no_effect

__all__ = ["ROWS"]

IN_URL = no_effect("write it into the URL in result_backend")
CHANNELS = no_effect("a worker always opens its channel again")
HEARTBEATS = no_effect("a heartbeat is sent and looked for twice in an interval")

ROWS: tuple[Setting, ...] = (
    Setting(
        "broker_url",
        ANY,
        None,
        "Where messages go: a URL, or several addresses of one server, in a list or with semicolons between them; "
        "None: a SQLite file beside the app. CELERY_BROKER_URL in the environment wins.",
    ),
    Setting(
        "broker_read_url",
        ANY,
        None,
        "Where workers read, if elsewhere. CELERY_BROKER_READ_URL in the environment wins.",
    ),
    Setting(
        "broker_write_url",
        ANY,
        None,
        "Where producers write, if elsewhere. CELERY_BROKER_WRITE_URL in the environment wins.",
    ),
    Setting("broker_transport", STR, None, "Scheme of the URL that broker_host and its kin make."),
    Setting(
        "broker_transport_options",
        DICT,
        {},
        "Options of the adapter: visibility_timeout, global_keyprefix, priority_steps, master_name, wait_replicas …",
    ),
    Setting(
        "broker_connection_timeout",
        SECONDS,
        4,
        "Time in which a connection to the broker has to be made.",
        optional=True,
    ),
    Setting("broker_connection_retry", BOOL, True, "A worker that loses its broker tries again."),
    Setting(
        "broker_connection_retry_on_startup",
        BOOL,
        None,
        "A worker that finds no broker at its start tries again; off: exit code 3.",
        follows="broker_connection_retry",
    ),
    Setting("broker_connection_max_retries", INT, None, "Attempts before a worker gives up; None: never."),
    Setting(
        "broker_channel_error_retry",
        BOOL,
        False,
        "A worker tries again after an error of its AMQP channel.",
        status=CHANNELS,
    ),
    Setting(
        "broker_failover_strategy",
        ANY,
        None,
        "Order in which the other URLs of broker_url are tried: 'round-robin' (None), 'shuffle', or a function that "
        "takes them and yields one after the other.",
    ),
    Setting(
        "broker_heartbeat",
        SECONDS,
        120,
        "Most seconds between two AMQP heartbeats of a worker, 0 or None: none; RabbitMQ wants 60 by default.",
        optional=True,
    ),
    Setting(
        "broker_heartbeat_checkrate",
        FLOAT,
        3.0,
        "Checks within one interval of AMQP heartbeats.",
        status=HEARTBEATS,
        optional=True,
    ),
    Setting("broker_login_method", STR, None, "AMQP login method: PLAIN (None) or EXTERNAL."),
    Setting(
        "broker_native_delayed_delivery_queue_type",
        STR,
        "quorum",
        "Type of the queues in which RabbitMQ delays messages: quorum or classic.",
        optional=True,
    ),
    Setting(
        "broker_pool_limit",
        INT,
        10,
        "Connections that a producer keeps; 0 or None: each call opens its own.",
        optional=True,
    ),
    Setting(
        "broker_pool_acquire_timeout",
        SECONDS,
        None,
        "Wait for a free connection of the pool.",
        status=no_effect("broker_publish_timeout bounds the whole call"),
    ),
    Setting(
        "broker_publish_timeout",
        SECONDS,
        5.0,
        "Time after which delay() gives up on a broker and raises OperationalError.",
        own=True,
    ),
    Setting("broker_use_ssl", ANY, False, "TLS: True, or a dict of ssl options."),
    Setting("broker_host", STR, None, "Host of the broker; broker_url is simpler."),
    Setting("broker_port", INT, None, "Port of the broker; broker_url is simpler."),
    Setting("broker_user", STR, None, "User at the broker; broker_url is simpler."),
    Setting("broker_password", STR, None, "Password at the broker; broker_url is simpler."),
    Setting("broker_vhost", ANY, None, "Virtual host or database at the broker; broker_url is simpler."),
    Setting(
        "ledger_url",
        STR,
        None,
        "URL of the server that keeps locks, limits, pauses and revoked tasks where the broker cannot, and the steps "
        "of self.once in any case; None: the broker's, else that of the results.",
        own=True,
    ),
    # the application's transactions
    Setting(
        "outbox_url",
        ANY,
        None,
        "URL of the application's database, or a list of them, whose outbox takes what app.transaction() sends; workers"
        " with it relay: postgresql://… or sqlite:///….",
        own=True,
    ),
    Setting(
        "outbox_interval",
        SECONDS,
        1.0,
        "Seconds between two looks at an outbox; PostgreSQL wakes its relays besides.",
        own=True,
    ),
    Setting("outbox_batch_size", INT, 200, "Most messages that a relay takes from an outbox at once.", own=True),
    # Redis as result store
    Setting(
        "redis_backend_use_ssl",
        ANY,
        None,
        "TLS to the Redis result store: a dict of ssl options.",
        old="CELERY_REDIS_BACKEND_USE_SSL",
    ),
    Setting("redis_db", INT, None, "Database of the Redis result store.", old="CELERY_REDIS_DB", status=IN_URL),
    Setting("redis_host", STR, None, "Host of the Redis result store.", old="CELERY_REDIS_HOST", status=IN_URL),
    Setting(
        "redis_max_connections",
        INT,
        None,
        "Connections to the Redis result store; None: no limit.",
        old="CELERY_REDIS_MAX_CONNECTIONS",
    ),
    Setting("redis_username", STR, None, "User of the Redis result store.", old="CELERY_REDIS_USERNAME", status=IN_URL),
    Setting(
        "redis_password", STR, None, "Password of the Redis result store.", old="CELERY_REDIS_PASSWORD", status=IN_URL
    ),
    Setting("redis_port", INT, None, "Port of the Redis result store.", old="CELERY_REDIS_PORT", status=IN_URL),
    Setting(
        "redis_socket_timeout",
        SECONDS,
        120.0,
        "Time in which the Redis result store has to answer.",
        old="CELERY_REDIS_SOCKET_TIMEOUT",
        optional=True,
    ),
    Setting(
        "redis_socket_connect_timeout",
        SECONDS,
        None,
        "Time in which a connection to the Redis result store has to be made.",
        old="CELERY_REDIS_SOCKET_CONNECT_TIMEOUT",
    ),
    Setting(
        "redis_retry_on_timeout",
        BOOL,
        False,
        "Try once more when the Redis result store does not answer in time.",
        old="CELERY_REDIS_RETRY_ON_TIMEOUT",
    ),
    Setting(
        "redis_socket_keepalive",
        BOOL,
        False,
        "TCP keep-alive on connections to the Redis result store.",
        old="CELERY_REDIS_SOCKET_KEEPALIVE",
    ),
)
