"""Result records per state, saved groups, other serializers: `results.json` and `results_by_serializer.json`."""

# mypy: ignore-errors

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from celery import chain, group
from kombu.serialization import registry

from tests.compat.golden import app as golden
from tests.compat.golden.app import add, app
from tests.compat.golden.peer import client, other_keys, queued, record, wait_for, worker

TASK_ID = "719f19a5-0000-4000-8000-000000000001"


def results() -> dict:
    """Result records per state, plain and with `result_extended`; a saved group."""
    with worker():
        plain = result_records()
    client().flushall()
    with worker(GOLDEN_EXTENDED="1"):
        extended = result_records()
    return {"records": plain, "records_extended": extended, "groups": saved_groups()}


def result_records() -> dict:
    def call(name: str, *args: object, **options: object) -> str:
        return getattr(golden, name).apply_async(args, queue="work", **options).id

    yesterday = datetime.now(UTC) - timedelta(days=1)
    failing = chain(golden.fail.s(1).set(queue="work"), golden.add.s(1).set(queue="work")).apply_async()
    found = {
        "SUCCESS": record(call("add", 2, 3), "SUCCESS"),
        "SUCCESS_none": record(call("sleep", 0), "SUCCESS"),
        "SUCCESS_typed": record(call("typed"), "SUCCESS"),
        "SUCCESS_kwargs": record(call("echo", 1, kwargs={"a": "grün"}), "SUCCESS"),
        "SUCCESS_children": record(call("spawn"), "SUCCESS"),
        "SUCCESS_with_root": record(call("add", 2, 3, root_id="the-root", parent_id="the-parent"), "SUCCESS"),
        "SUCCESS_in_group": record(call("add", 2, 3, group_id="the-group", group_index=1), "SUCCESS"),
        "STARTED": record(call("sleep", 1), "STARTED"),
        "PROGRESS": record(call("progress"), "PROGRESS"),
        "RETRY": record(call("retry", 3600), "RETRY"),
        "FAILURE": record(call("fail"), "FAILURE"),
        "FAILURE_own_exception": record(call("refuse"), "FAILURE"),
        "FAILURE_max_retries": record(call("retries_exhausted"), "FAILURE"),
        "FAILURE_arguments": record(call("sleep", "x"), "FAILURE"),
        "FAILURE_soft_time_limit": record(call("soft"), "FAILURE"),
        "FAILURE_hard_time_limit": record(call("hard"), "FAILURE"),
        "FAILURE_worker_lost": record(call("die"), "FAILURE"),
        "FAILURE_not_registered": record(app.send_task("golden.nobody", queue="work").id, "FAILURE"),
        "FAILURE_first_of_chain": record(failing.parent.id, "FAILURE"),
        "FAILURE_rest_of_chain": record(failing.id, "FAILURE"),
        "REVOKED_expired": record(call("add", 2, 3, expires=yesterday), "REVOKED"),
        "REVOKED_terminated": terminated(call("sleep", 20)),
        "REVOKED_before": revoked(lambda task_id: call("add", 2, 3, task_id=task_id)),
    }
    client().delete("parked")
    return found


def terminated(task_id: str) -> dict:
    record(task_id, "STARTED")
    app.control.revoke(task_id, terminate=True)
    return record(task_id, "REVOKED")


def revoked(call: Callable[[str], str]) -> dict:
    task_id = str(uuid4())
    app.control.revoke(task_id, reply=True)
    return record(call(task_id), "REVOKED")


def saved_groups() -> dict:

    client().flushdb()
    result = group(add.s(1, 2), chain(add.s(3, 4), add.s(5))).apply_async()
    result.save()
    queued()
    return other_keys()


def results_by_serializer() -> dict:
    """Records of other result serializers: base64, for they need not be text. The traceback is a stand-in."""
    found = {}
    for serializer in ("pickle", "yaml", "msgpack"):
        with worker(GOLDEN_RESULT_SERIALIZER=serializer):
            key = f"celery-task-meta-{add.apply_async((2, 3), queue='work').id}"
            wait_for(lambda key=key: b"SUCCESS" in (client().get(key) or b""), f"a result in {serializer}")
        found[f"{serializer}_SUCCESS"] = {"key": key, "base64": base64.b64encode(client().get(key)).decode()}
        app.conf.result_serializer = serializer
        app.backend.serializer = serializer
        app.backend.content_type, app.backend.content_encoding, app.backend.encoder = registry._encoders[serializer]
        app.backend.mark_as_failure(TASK_ID, ValueError("bad input", 42), traceback="Traceback: a stand-in")
        raw = client().getdel(key := f"celery-task-meta-{TASK_ID}")
        found[f"{serializer}_FAILURE"] = {"key": key, "base64": base64.b64encode(raw).decode()}
    app.conf.result_serializer = app.backend.serializer = "json"
    return {"records": found}
