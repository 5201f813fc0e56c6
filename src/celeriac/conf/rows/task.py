"""Settings of tasks: defaults of their options, routing, serialization, publishing.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from datetime import timedelta

from celeriac.conf.setting import ANY, BOOL, DICT, INT, SECONDS, STR, Setting, no_effect, refused

__all__ = ["ROWS"]

CRASHES = no_effect("what a lost child ran is always tried again, and dead-lettered after worker_max_crashes crashes")

ROWS: tuple[Setting, ...] = (
    # running
    Setting(
        "task_acks_late",
        BOOL,
        True,
        "Settle a task after its run; off: before, and a crash loses it.",
        old="CELERY_ACKS_LATE",
    ),
    Setting(
        "task_revoke_expires",
        SECONDS,
        timedelta(days=30),
        "Time for which a revoked task stays revoked; None: for ever.",
        optional=True,
        own=True,
    ),
    Setting(
        "task_acks_on_failure_or_timeout",
        BOOL,
        True,
        "Settle a task that failed or exceeded a time limit; off: dead-letter its message.",
        old="CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
    ),
    Setting(
        "task_acks_on_failure",
        BOOL,
        None,
        "Settle a task that failed; off: dead-letter its message.",
        old="CELERY_ACKS_ON_FAILURE",
        follows="task_acks_on_failure_or_timeout",
    ),
    Setting(
        "task_acks_on_timeout",
        BOOL,
        None,
        "Settle a task that exceeded a time limit; off: dead-letter its message.",
        old="CELERY_ACKS_ON_TIMEOUT",
        follows="task_acks_on_failure_or_timeout",
    ),
    Setting(
        "task_reject_on_worker_lost",
        BOOL,
        None,
        "Try again what ran in a child that was lost.",
        old="CELERY_REJECT_ON_WORKER_LOST",
        status=CRASHES,
    ),
    Setting(
        "task_retry_on_worker_lost",
        BOOL,
        False,
        "Try again, as a retry, what ran in a child that was lost.",
        old="CELERY_RETRY_ON_WORKER_LOST",
        status=CRASHES,
    ),
    Setting("task_time_limit", SECONDS, None, "Hard limit: the child is killed.", old="CELERYD_TASK_TIME_LIMIT"),
    Setting(
        "task_soft_time_limit",
        SECONDS,
        None,
        "Soft limit: SoftTimeLimitExceeded is raised in the task.",
        old="CELERYD_TASK_SOFT_TIME_LIMIT",
    ),
    Setting(
        "task_default_rate_limit",
        ANY,
        None,
        'Default of rate_limit: "10/s", "100/m", "2/h", a number a second; of each task, in all workers together.',
        old="CELERY_DEFAULT_RATE_LIMIT",
    ),
    Setting("task_track_started", BOOL, False, "Store the state STARTED.", old="CELERY_TRACK_STARTED"),
    Setting("task_ignore_result", BOOL, False, "Store no results.", old="CELERY_IGNORE_RESULT"),
    Setting(
        "task_store_errors_even_if_ignored",
        BOOL,
        False,
        "Store failures even where results are ignored.",
        old="CELERY_STORE_ERRORS_EVEN_IF_IGNORED",
    ),
    Setting("task_always_eager", BOOL, False, "Run a task where it is called; for tests.", old="CELERY_ALWAYS_EAGER"),
    Setting(
        "task_eager_propagates",
        BOOL,
        False,
        "A task that runs eagerly raises its exception.",
        old="CELERY_EAGER_PROPAGATES_EXCEPTIONS",
    ),
    Setting(
        "task_store_eager_result",
        BOOL,
        False,
        "A task that runs eagerly stores its result.",
        old="CELERY_STORE_EAGER_RESULT",
    ),
    Setting(
        "task_annotations",
        ANY,
        None,
        'Changes to attributes of tasks: a dict of name to attributes, "*" for all; or a list of them.',
        old="CELERY_ANNOTATIONS",
    ),
    Setting(
        "task_remote_tracebacks",
        BOOL,
        False,
        "Results carry tracebacks that can be raised.",
        old="CELERY_REMOTE_TRACEBACKS",
        status=no_effect("tracebacks are stored as text"),
    ),
    Setting(
        "task_allow_error_cb_on_chord_header",
        BOOL,
        False,
        "Error callbacks of a chord go to each task of its header too.",
        old="CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
    ),
    # retries
    Setting(
        "task_retry_backoff",
        SECONDS,
        1.0,
        "First delay where no countdown or default_retry_delay is given; doubled each time.",
        own=True,
    ),
    Setting(
        "task_idempotency_ttl",
        SECONDS,
        86400.0,
        "Time for which an idempotency_key returns the result of the first call instead of sending.",
        own=True,
    ),
    Setting(
        "task_step_expires",
        SECONDS,
        7 * 86400.0,
        "Time for which self.once() remembers a step; longer than any task lives, its retries included.",
        own=True,
    ),
    Setting("task_retry_backoff_max", SECONDS, 600.0, "Longest delay that doubling leads to.", own=True),
    Setting(
        "task_retry_jitter",
        BOOL,
        True,
        "Take a random part of the delay (full jitter), so that retries do not come in waves.",
        own=True,
    ),
    # routing
    Setting(
        "task_routes",
        ANY,
        None,
        "Routers: a dict of name, glob or pattern to queue or options; a list of pairs; a function; a dotted name.",
        old="CELERY_ROUTES",
    ),
    Setting(
        "task_queues",
        ANY,
        None,
        "Queues that are declared, and read when -Q is not given: a list of Queue or a dict.",
        old="CELERY_QUEUES",
    ),
    Setting("task_default_queue", STR, "celery", "Queue of tasks without a route.", old="CELERY_DEFAULT_QUEUE"),
    Setting(
        "task_default_queue_type",
        STR,
        "classic",
        "Type of task_default_queue: classic or quorum.",
        old="CELERY_DEFAULT_QUEUE_TYPE",
    ),
    Setting(
        "task_default_exchange",
        STR,
        None,
        "Exchange of queues that name none.",
        old="CELERY_DEFAULT_EXCHANGE",
        follows="task_default_queue",
    ),
    Setting(
        "task_default_exchange_type",
        STR,
        "direct",
        "Type of task_default_exchange.",
        old="CELERY_DEFAULT_EXCHANGE_TYPE",
    ),
    Setting(
        "task_default_routing_key",
        STR,
        None,
        "Routing key of queues that name none.",
        old="CELERY_DEFAULT_ROUTING_KEY",
        follows="task_default_queue",
    ),
    Setting(
        "task_create_missing_queues",
        BOOL,
        True,
        "A name outside task_queues makes a queue; off: QueueNotFound.",
        old="CELERY_CREATE_MISSING_QUEUES",
    ),
    Setting(
        "task_create_missing_queue_type",
        STR,
        "classic",
        "Type of queues that are not in task_queues: classic or quorum.",
        old="CELERY_CREATE_MISSING_QUEUE_TYPE",
    ),
    Setting(
        "task_create_missing_queue_exchange_type",
        STR,
        None,
        "Type of the exchanges of queues that are not in task_queues; None: direct.",
        old="CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE",
    ),
    Setting(
        "task_queue_max_priority",
        INT,
        None,
        "x-max-priority of queues that say none.",
        old="CELERY_QUEUE_MAX_PRIORITY",
    ),
    Setting("task_default_priority", INT, None, "Priority of a task, 0 to 9.", old="CELERY_DEFAULT_PRIORITY"),
    Setting(
        "task_inherit_parent_priority",
        BOOL,
        False,
        "A task called by a task has its priority.",
        old="CELERY_INHERIT_PARENT_PRIORITY",
    ),
    Setting(
        "task_default_delivery_mode", ANY, 2, '2 or "persistent", 1 or "transient".', old="CELERY_DEFAULT_DELIVERY_MODE"
    ),
    # publishing
    Setting("task_serializer", STR, "json", "Serializer of arguments.", old="CELERY_TASK_SERIALIZER"),
    Setting(
        "task_compression", STR, None, "Compression of arguments: gzip, bzip2, zstd …", old="CELERY_MESSAGE_COMPRESSION"
    ),
    Setting(
        "task_protocol",
        INT,
        2,
        "Version of the message format that is written; both are read.",
        old="CELERY_TASK_PROTOCOL",
        status=refused("only version 2 is written"),
    ),
    Setting(
        "task_publish_retry",
        BOOL,
        True,
        "delay() tries again when the broker fails, within broker_publish_timeout.",
        old="CELERY_TASK_PUBLISH_RETRY",
    ),
    Setting(
        "task_publish_retry_policy",
        DICT,
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "max_retries, interval_start, interval_step, interval_max (seconds).",
        old="CELERY_TASK_PUBLISH_RETRY_POLICY",
    ),
    Setting(
        "task_send_sent_event",
        BOOL,
        False,
        "Producers send the event task-sent.",
        old="CELERY_SEND_TASK_SENT_EVENT",
        status=no_effect("producers send no events; those of workers begin with task-received"),
    ),
    Setting(
        "task_repr_maxlevels",
        INT,
        3,
        "Depth to which argsrepr and kwargsrepr go.",
        old="CELERY_REPR_MAXLEVELS",
        optional=True,
    ),
    Setting(
        "max_message_bytes",
        INT,
        32 * 1024 * 1024,
        "Largest message, decoded and decompressed, and largest result; a larger one is refused with the name of its "
        "task.",
        own=True,
    ),
    Setting(
        "task_message_warn_bytes",
        INT,
        64 * 1024,
        "Warn, once for each task, when the body of its message is larger; 0: never.",
        own=True,
    ),
    Setting(
        "task_compression_min_bytes",
        INT,
        0,
        "Compress only bodies of at least so many bytes; smaller ones go as they are.",
        own=True,
    ),
    Setting(
        "payload_store",
        STR,
        None,
        "Where large bodies and results are kept beside the broker: the absolute path of a shared directory, or a URL "
        "of fsspec's, s3://bucket/prefix. Workers of Celery cannot read them.",
        own=True,
    ),
    Setting(
        "payload_store_min_bytes",
        INT,
        64 * 1024,
        "Bodies and results of more bytes go to the payload_store; those below 1 KiB never do.",
        own=True,
    ),
    Setting(
        "payload_store_expires",
        SECONDS,
        timedelta(days=30),
        "How long after it was due a body is kept when no worker drops it: longer than a task may wait.",
        own=True,
    ),
)
