"""Settings without a family, and those of beat, remote control, events and message signing.

Data only. Read by ``table.py``.
"""

from __future__ import annotations

from celeriac.conf.setting import ANY, BOOL, DICT, INT, LIST, SECONDS, STR, Setting, no_effect, refused

__all__ = ["ROWS"]

EVENTS = no_effect("events go over Celery's exchange celeryev, as JSON")
CONTROL_QUEUES = no_effect("queues of control and events are exclusive, with Celery's default times")
CERTIFICATES = refused("there is no auth serializer; messages and results are signed with signing_key")

ROWS: tuple[Setting, ...] = (
    Setting(
        "accept_content",
        LIST,
        ("json",),
        "Serializers or content types that are decoded; everything else is dead-lettered.",
        old="CELERY_ACCEPT_CONTENT",
    ),
    Setting(
        "result_accept_content",
        LIST,
        None,
        "Serializers or content types that are decoded in results.",
        follows="accept_content",
    ),
    Setting("enable_utc", BOOL, True, "Times in messages are UTC; off: in the local time zone."),
    Setting("imports", LIST, (), "Modules that a worker imports at its start.", old="CELERY_IMPORTS"),
    Setting(
        "include",
        LIST,
        (),
        "More modules that a worker imports at its start: those of Celery(include=…).",
        old="CELERY_INCLUDE",
    ),
    Setting(
        "timezone",
        ANY,
        None,
        "Time zone of schedules and of naive times, by name or as tzinfo; None: UTC.",
        old="CELERY_TIMEZONE",
    ),
    # beat
    Setting(
        "beat_enable_remote_control",
        BOOL,
        False,
        "`celeriac beat` answers `celeriac inspect ping`, as celerybeat@host; workers with -B answer anyway.",
        old="CELERYBEAT_ENABLE_REMOTE_CONTROL",
    ),
    Setting(
        "beat_remote_control_max_tick_age",
        SECONDS,
        None,
        "A beat whose last look is older answers no more; 0: it always does; None: twice its sleep, at least 60 s.",
        old="CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
    ),
    Setting(
        "beat_max_loop_interval",
        SECONDS,
        0,
        "Longest sleep between two looks at the schedule; 0: the scheduler decides.",
        old="CELERYBEAT_MAX_LOOP_INTERVAL",
    ),
    Setting(
        "beat_schedule",
        DICT,
        {},
        "Periodic tasks: name to task, schedule, args, kwargs, options and more (how-to: periodic tasks).",
        old="CELERYBEAT_SCHEDULE",
    ),
    Setting(
        "beat_scheduler",
        ANY,
        "celeriac.beat:SharedScheduler",
        "Scheduler class, or its name: module:Class, or that of an entry point.",
        old="CELERYBEAT_SCHEDULER",
    ),
    Setting(
        "beat_schedule_filename",
        STR,
        "celerybeat-schedule",
        "File in which PersistentScheduler keeps last run times.",
        old="CELERYBEAT_SCHEDULE_FILENAME",
    ),
    Setting(
        "beat_sync_every",
        INT,
        0,
        "Tasks sent between two writes of that file; 0: by time alone.",
        old="CELERYBEAT_SYNC_EVERY",
    ),
    Setting(
        "beat_cron_starting_deadline",
        SECONDS,
        None,
        "A slot that was missed for longer is left out; an entry may have a deadline of its own.",
        old="CELERYBEAT_CRON_STARTING_DEADLINE",
    ),
    # remote control
    Setting("control_exchange", STR, "celery", "Prefix of the exchange or channel of remote control."),
    Setting(
        "control_queue_ttl",
        SECONDS,
        300.0,
        "Life time of a message in a control queue.",
        status=CONTROL_QUEUES,
        optional=True,
    ),
    Setting(
        "control_queue_expires",
        SECONDS,
        10.0,
        "Unused time after which a control queue goes away.",
        status=CONTROL_QUEUES,
        optional=True,
    ),
    Setting("control_queue_exclusive", BOOL, True, "A control queue belongs to one connection.", status=CONTROL_QUEUES),
    Setting(
        "control_queue_durable", BOOL, False, "Control queues outlive a restart of the broker.", status=CONTROL_QUEUES
    ),
    # events
    Setting(
        "event_queue_expires",
        SECONDS,
        60.0,
        "Unused time after which a monitor's queue goes away.",
        old="CELERY_EVENT_QUEUE_EXPIRES",
        status=CONTROL_QUEUES,
        optional=True,
    ),
    Setting(
        "event_queue_ttl",
        SECONDS,
        5.0,
        "Life time of an event in a monitor's queue.",
        old="CELERY_EVENT_QUEUE_TTL",
        status=CONTROL_QUEUES,
        optional=True,
    ),
    Setting(
        "event_queue_prefix",
        STR,
        "celeryev",
        "Prefix of the names of monitors' queues.",
        old="CELERY_EVENT_QUEUE_PREFIX",
        status=EVENTS,
    ),
    Setting(
        "event_queue_exclusive",
        BOOL,
        True,
        "A monitor's queue belongs to one connection.",
        old="CELERY_EVENT_QUEUE_EXCLUSIVE",
        status=CONTROL_QUEUES,
    ),
    Setting(
        "event_queue_durable",
        BOOL,
        False,
        "Monitors' queues outlive a restart of the broker.",
        old="CELERY_EVENT_QUEUE_DURABLE",
        status=CONTROL_QUEUES,
    ),
    Setting("event_serializer", STR, "json", "Serializer of events.", old="CELERY_EVENT_SERIALIZER", status=EVENTS),
    Setting(
        "event_exchange", STR, "celeryev", "Exchange or channel of events.", old="CELERY_EVENT_EXCHANGE", status=EVENTS
    ),
    # signatures
    Setting(
        "signing_key",
        ANY,
        None,
        "Key that signs messages and results; those without its signature are refused. A list: the first signs, all"
        " verify. At least 16 bytes each; CELERIAC_SIGNING_KEY overrides it.",
        own=True,
    ),
    Setting(
        "control_key",
        ANY,
        None,
        "Key that signs remote commands, as signing_key; CELERIAC_CONTROL_KEY overrides it.",
        follows="signing_key",
        own=True,
    ),
    Setting(
        "redact_names",
        LIST,
        (),
        "More names of arguments and keys whose values are shown as *** in logs, events and inspection; parts of"
        " names, in any case.",
        own=True,
    ),
    # Celery's certificates
    Setting(
        "security_certificate",
        STR,
        None,
        "File of the certificate that signs messages.",
        old="CELERY_SECURITY_CERTIFICATE",
        status=CERTIFICATES,
    ),
    Setting(
        "security_cert_store",
        STR,
        None,
        "Files of the certificates that are trusted.",
        old="CELERY_SECURITY_CERT_STORE",
        status=CERTIFICATES,
    ),
    Setting("security_key", STR, None, "File of the private key.", old="CELERY_SECURITY_KEY", status=CERTIFICATES),
    Setting(
        "security_key_password",
        ANY,
        None,
        "Password of the private key, as bytes.",
        old="CELERY_SECURITY_KEY_PASSWORD",
        status=CERTIFICATES,
    ),
    Setting(
        "security_digest", STR, "sha256", "Digest of signatures.", old="CELERY_SECURITY_DIGEST", status=CERTIFICATES
    ),
)
