"""The settings table against Celery's: names, old names, defaults, and what each row has to say."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from celeriac.conf import SETTINGS, Kind, Level, Settings
from celeriac.conf.check import check
from celeriac.conf.rows import broker, cloud, general, result, task, worker
from celeriac.conf.table import FOLLOWERS, NEW_NAMES, find

CELERY = json.loads(Path(__file__).with_name("celery_settings.json").read_text())

#: Where we differ from Celery 5.7 on purpose (DESIGN: defaults).
DIFFERENT = {
    "task_acks_late": True,
    "worker_proc_alive_timeout": 60.0,
    "worker_hijack_root_logger": False,
    "broker_connection_max_retries": None,
    "beat_scheduler": "celeriac.beat:SharedScheduler",
    "worker_autoscaler": None,
    "worker_consumer": None,
}

OURS = {
    "broker_publish_timeout": 5.0,
    "control_key": None,
    "dead_letter_expires": timedelta(days=14),
    "dead_letter_limit": 10_000,
    "ledger_url": None,
    "outbox_batch_size": 200,
    "outbox_interval": 1.0,
    "outbox_url": None,
    "max_message_bytes": 32 * 1024 * 1024,
    "payload_store": None,
    "payload_store_expires": timedelta(days=30),
    "payload_store_min_bytes": 64 * 1024,
    "task_compression_min_bytes": 0,
    "task_message_warn_bytes": 64 * 1024,
    "redact_names": (),
    "signing_key": None,
    "task_idempotency_ttl": 86400.0,
    "task_retry_backoff": 1.0,
    "task_retry_backoff_max": 600.0,
    "task_retry_jitter": True,
    "task_revoke_expires": timedelta(days=30),
    "task_step_expires": 7 * 86400.0,
    "worker_async_concurrency": 100,
    "worker_claim_target": 0.02,
    "worker_grace": 25.0,
    "worker_lease": 30.0,
    "worker_autoscale_keepalive": 30.0,
    "worker_log_arguments": False,
    "worker_log_results": False,
    "worker_max_crashes": 3,
    "worker_max_expired_leases": 10,
    "dead_letter_max_bytes": 256 * 1024 * 1024,
    "worker_unknown_task_park": 60.0,
}


def celery_default(name):
    default = CELERY[name]["default"]
    if isinstance(default, dict) and list(default) == ["seconds"]:
        return timedelta(seconds=default["seconds"])
    if default == "inf":
        return float("inf")
    return tuple(default) if isinstance(default, list) else default


def test_every_celery_setting_is_there_and_ours_are_marked():
    assert len(CELERY) == 207
    assert {name for name, row in SETTINGS.items() if not row.own} == set(CELERY)
    assert {name: row.default for name, row in SETTINGS.items() if row.own} == OURS


def test_no_name_is_given_twice():
    rows = [row.name for rows in (broker, cloud, general, result, task, worker) for row in rows.ROWS]
    assert len(rows) == len(set(rows))
    old = [row.old_name for row in SETTINGS.values() if row.old_name]
    assert len(old) == len(set(old))


def test_defaults_and_old_names_are_celerys():
    for name in CELERY:
        row = SETTINGS[name]
        assert row.old_name == CELERY[name]["old"], name
        assert row.default == DIFFERENT.get(name, celery_default(name)), name


def test_what_users_feel_is_pinned():
    conf = Settings()
    assert conf.worker_prefetch_multiplier == 4
    assert conf.task_time_limit is None
    assert conf.task_soft_time_limit is None
    assert conf.seconds("result_expires") == 86400
    assert conf.broker_pool_limit == 10
    assert conf.task_publish_retry_policy == {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1,
    }
    assert conf.result_chord_join_timeout == 3.0
    assert conf.redis_socket_timeout == 120.0


def test_each_row_is_complete():
    for row in SETTINGS.values():
        assert row.name == row.name.lower()
        assert row.doc[-1] in ".…", row.name
        assert "\n" not in row.doc, row.name
        assert bool(row.status.reason) is (row.status.level is not Level.HONOURED), row.name
        # A default has to pass its own check.
        assert check(row, row.default) == row.default, row.name
        assert not row.choices or row.default in row.choices, row.name
        assert not row.follows or (row.follows in SETTINGS and row.default is None), row.name
        assert isinstance(row.kind, Kind), row.name


def test_no_setting_is_hidden_by_an_attribute_of_settings():
    overridden = {"broker_url", "broker_read_url", "broker_write_url", "result_backend"}
    assert {name for name in SETTINGS if hasattr(Settings, name)} == overridden


def test_cloud_backends_are_accepted_silently():
    silent = {name for name, row in SETTINGS.items() if row.status.level is Level.SILENT}
    families = ("arangodb", "azureblockblob", "cache", "cassandra", "cosmosdbsql", "couchbase", "elasticsearch")
    assert silent == {name for name in CELERY if name.startswith((*families, "gcs", "mongodb", "s3"))}


def test_followers_mirror_follows():
    assert set(FOLLOWERS["task_default_queue"]) == {"task_default_exchange", "task_default_routing_key"}


def test_old_names_lead_to_new_ones():
    assert NEW_NAMES["CELERYD_CONCURRENCY"] == "worker_concurrency"
    assert NEW_NAMES["CELERYBEAT_SCHEDULE"] == "beat_schedule"
    assert NEW_NAMES["BROKER_URL"] == "broker_url"
    assert "WORKER_GRACE" not in NEW_NAMES


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("extended", "result", ("result", "extended")),
        ("extended", "celery", ("result", "extended")),
        ("Disable_Rate_Limits", "", ("worker", "disable_rate_limits")),
        ("imports", "celery", (None, "imports")),
        ("url", "database", ("database", "url")),
        ("grace", "worker", ("worker", "grace")),
    ],
)
def test_find_prefers_the_family(name, namespace, expected):
    assert find(name, namespace)[:2] == expected


def test_find_raises_for_an_unknown_name():
    with pytest.raises(KeyError):
        find("nonexistent")
