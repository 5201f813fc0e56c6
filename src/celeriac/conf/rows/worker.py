"""Settings of workers.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from datetime import timedelta

from celeriac.conf.setting import ANY, BOOL, INT, SECONDS, STR, Setting, no_effect

__all__ = ["ROWS"]

FIXED = no_effect("this part of a worker cannot be replaced")

ROWS: tuple[Setting, ...] = (
    # size and limits
    Setting("worker_concurrency", INT, None, "Children or threads; None: as many as CPUs.", old="CELERYD_CONCURRENCY"),
    Setting("worker_async_concurrency", INT, 100, "async tasks in flight in one child.", own=True),
    Setting("worker_pool", ANY, "prefork", "prefork, threads or solo.", old="CELERYD_POOL"),
    Setting(
        "worker_pool_start_method",
        STR,
        "fork",
        "How children start: fork, or spawn for apps that start threads when imported.",
        old="CELERYD_POOL_START_METHOD",
        choices=("fork", "spawn"),
    ),
    Setting(
        "worker_max_tasks_per_child",
        INT,
        None,
        "Tasks after which a child is replaced.",
        old="CELERYD_MAX_TASKS_PER_CHILD",
    ),
    Setting(
        "worker_max_memory_per_child",
        INT,
        None,
        "Resident memory in KiB beyond which a child is replaced.",
        old="CELERYD_MAX_MEMORY_PER_CHILD",
    ),
    Setting(
        "worker_autoscale_keepalive",
        SECONDS,
        30.0,
        "With --autoscale: time for which a child was not needed before it leaves.",
        own=True,
    ),
    Setting("worker_autoscaler", ANY, None, "Autoscaler class.", old="CELERYD_AUTOSCALER", status=FIXED),
    Setting(
        "worker_proc_alive_timeout",
        SECONDS,
        60.0,
        "Time in which a child has to come up, receivers of worker_process_init included; None: any. Longer than "
        "Celery's 4 s, for models are loaded there.",
        old="CELERYD_PROC_ALIVE_TIMEOUT",
        optional=True,
    ),
    Setting(
        "worker_pool_putlocks",
        BOOL,
        True,
        "Bound what is handed to the pool.",
        old="CELERYD_POOL_PUTLOCKS",
        status=no_effect("children fetch for themselves"),
    ),
    Setting(
        "worker_pool_restarts",
        BOOL,
        False,
        "Allow the remote command pool_restart.",
        old="CELERYD_POOL_RESTARTS",
        status=no_effect("pool_restart is not built yet"),
    ),
    # claiming
    Setting(
        "worker_prefetch_multiplier",
        INT,
        4,
        "Most tasks claimed and not started, for each slot; 0: no bound but worker_claim_target.",
        old="CELERYD_PREFETCH_MULTIPLIER",
    ),
    Setting(
        "worker_disable_prefetch", BOOL, False, "Claim only what can start at once.", old="CELERYD_DISABLE_PREFETCH"
    ),
    Setting(
        "worker_claim_target",
        SECONDS,
        0.02,
        "Work that is claimed ahead: batches of tiny tasks hold about so much of it.",
        own=True,
    ),
    Setting(
        "worker_eta_task_limit",
        INT,
        None,
        "Most tasks with an ETA held in memory.",
        old="CELERYD_ETA_TASK_LIMIT",
        status=no_effect("tasks with an ETA wait in the broker"),
    ),
    Setting(
        "worker_enable_prefetch_count_reduction",
        BOOL,
        True,
        "Claim less after a lost connection.",
        old="CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION",
        status=no_effect("claims always adapt"),
    ),
    Setting(
        "worker_detect_quorum_queues",
        BOOL,
        True,
        "Look for quorum queues.",
        old="CELERYD_DETECT_QUORUM_QUEUES",
        status=no_effect("nothing depends on it: a prefetch counts for each consumer, whatever the queue"),
    ),
    Setting(
        "worker_direct",
        BOOL,
        False,
        "Give each worker a queue of its own.",
        old="CELERY_WORKER_DIRECT",
        status=no_effect("queues of single workers are not built yet"),
    ),
    Setting("worker_disable_rate_limits", BOOL, False, "Ignore rate limits.", old="CELERY_DISABLE_RATE_LIMITS"),
    # losing nothing
    Setting(
        "worker_lease",
        SECONDS,
        30.0,
        "A delivery that was not renewed for so long goes back to its queue; renewed at a third of it.",
        own=True,
    ),
    Setting(
        "worker_grace",
        SECONDS,
        25.0,
        "Time that running tasks have after SIGTERM before they go back to their queue.",
        own=True,
    ),
    Setting("worker_max_crashes", INT, 3, "Crashes attributed to a task after which it is dead-lettered.", own=True),
    Setting(
        "worker_max_expired_leases",
        INT,
        10,
        "Lost leases, with no process to blame, after which a message is dead-lettered; None: never.",
        optional=True,
        own=True,
    ),
    Setting(
        "worker_unknown_task_park",
        SECONDS,
        60.0,
        "Time for which a task that no worker knows waits for one that does.",
        own=True,
    ),
    Setting(
        "dead_letter_expires",
        SECONDS,
        timedelta(days=14),
        "Life time of a dead letter; None: for ever.",
        optional=True,
        own=True,
    ),
    Setting(
        "dead_letter_limit",
        INT,
        10_000,
        "Dead letters kept, the newest of all queues; None: all.",
        optional=True,
        own=True,
    ),
    Setting(
        "dead_letter_max_bytes",
        INT,
        256 * 1024 * 1024,
        "Bytes that all dead letters together may take, before the oldest are dropped; None: any.",
        optional=True,
        own=True,
    ),
    Setting(
        "worker_deduplicate_successful_tasks",
        BOOL,
        False,
        "Do not run again what was redelivered after its end.",
        old="CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
        status=no_effect("redelivered tasks that have ended are always recognised"),
    ),
    Setting(
        "worker_cancel_long_running_tasks_on_connection_loss",
        BOOL,
        False,
        "Cancel running tasks when the connection is lost.",
        old="CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
        status=no_effect("a task that loses its lease is fenced off instead"),
    ),
    Setting(
        "worker_soft_shutdown_timeout",
        SECONDS,
        0.0,
        "Time that running tasks have on a cold shutdown.",
        old="CELERYD_SOFT_SHUTDOWN_TIMEOUT",
        status=no_effect("see worker_grace"),
    ),
    Setting(
        "worker_enable_soft_shutdown_on_idle",
        BOOL,
        False,
        "Soft shutdown even when nothing runs.",
        old="CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
        status=no_effect("see worker_grace"),
    ),
    Setting(
        "worker_lost_wait",
        SECONDS,
        10.0,
        "Wait for the result of a child that was lost.",
        old="CELERYD_WORKER_LOST_WAIT",
        status=no_effect("what a lost child ran goes back to its queue at once"),
        optional=True,
    ),
    Setting(
        "worker_state_db",
        STR,
        None,
        "File in which revoked ids are kept.",
        old="CELERYD_STATE_DB",
        status=no_effect("revoked ids are kept on the broker"),
    ),
    # watching
    Setting(
        "worker_enable_remote_control",
        BOOL,
        True,
        "Obey remote control; 'inspect': answer questions, change nothing.",
        old="CELERY_ENABLE_REMOTE_CONTROL",
        choices=(True, False, "inspect"),
    ),
    Setting("worker_send_task_events", BOOL, False, "Send events about tasks, as -E does.", old="CELERY_SEND_EVENTS"),
    # logging
    Setting(
        "worker_hijack_root_logger",
        BOOL,
        False,
        "Replace the handlers of the root logger.",
        old="CELERYD_HIJACK_ROOT_LOGGER",
    ),
    Setting("worker_log_color", BOOL, None, "Coloured log; None: on a terminal.", old="CELERYD_LOG_COLOR"),
    Setting(
        "worker_log_format",
        STR,
        "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        "Format of log lines; 'json': a JSON object a line.",
        old="CELERYD_LOG_FORMAT",
    ),
    Setting("worker_log_datefmt", STR, None, "Format of times in log lines.", old="CELERYD_LOG_DATEFMT"),
    Setting(
        "worker_task_log_format",
        STR,
        "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
        "Format of lines that tasks log.",
        old="CELERYD_TASK_LOG_FORMAT",
    ),
    Setting(
        "worker_task_log_datefmt", STR, None, "Format of times in lines that tasks log.", old="CELERYD_TASK_LOG_DATEFMT"
    ),
    Setting(
        "worker_log_arguments", BOOL, False, "Log the arguments of tasks; off, since they may hold secrets.", own=True
    ),
    Setting("worker_log_results", BOOL, False, "Log the results of tasks; off, since they may hold secrets.", own=True),
    Setting("worker_redirect_stdouts", BOOL, True, "Log what tasks print.", old="CELERY_REDIRECT_STDOUTS"),
    Setting(
        "worker_redirect_stdouts_level",
        ANY,
        "WARNING",
        "Log level of what tasks print.",
        old="CELERY_REDIRECT_STDOUTS_LEVEL",
        optional=True,
    ),
    # parts
    Setting("worker_agent", ANY, None, "Agent class.", old="CELERYD_AGENT", status=FIXED),
    Setting("worker_consumer", ANY, None, "Consumer class.", old="CELERYD_CONSUMER", status=FIXED),
    Setting("worker_timer", ANY, None, "Timer class.", old="CELERYD_TIMER", status=FIXED),
    Setting(
        "worker_timer_precision", SECONDS, 1.0, "Precision of the timer.", old="CELERYD_TIMER_PRECISION", status=FIXED
    ),
)
