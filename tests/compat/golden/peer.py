"""The private Redis, the real Celery worker, and readers of what lies on the server."""

# mypy: ignore-errors

import base64
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

ROOT = Path(__file__).parents[3].absolute()


@contextmanager
def private_redis() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="golden-redis-")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        wait_for(lambda: answers(url), "redis-server")
        yield url
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def answers(url: str) -> bool:
    try:
        return redis.Redis.from_url(url).ping()
    except redis.ConnectionError:
        return False


def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["GOLDEN_URL"])


@contextmanager
def worker(*arguments: str, name: str = "w1@host", **env: str) -> Iterator[subprocess.Popen]:
    """A real Celery worker on the queue `work`, warm-stopped at the end."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-m", "celery", "-A", "tests.compat.golden.app", "worker", "-Q", "work"]
    command += ["-l", "error", "-c", "2", "-n", name, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, **quiet)
    try:
        from tests.compat.golden.app import app

        wait_for(lambda: app.control.ping([name], timeout=0.5), "worker")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"waited {seconds} s for {what}")


def text(raw: bytes) -> str:
    """The bytes as text, without this machine's name and paths, neither outside nor inside a base64 body."""
    found = raw.decode()
    if body := re.match(r'\[?\{"body": "([A-Za-z0-9+/=]+)"', found):
        inner = base64.b64decode(body[1])
        with contextlib.suppress(UnicodeDecodeError):
            found = found.replace(body[1], base64.b64encode(public(inner.decode()).encode()).decode())
    return public(found)


def public(found: str) -> str:
    names = {str(ROOT): "/srv/project", sys.base_prefix: "/usr", platform.release(): "6.1.0"}
    for mine, other in names.items():
        found = found.replace(mine, other)
    return re.sub(rf"@{re.escape(socket.gethostname())}\b", "@host", found)


def queued() -> list[dict]:
    """Every message in every list, oldest first, taken away."""
    r, found = client(), []
    for key in sorted(r.keys("*")):
        if r.type(key) == b"list":
            found += [{"key": key.decode(), "raw": text(raw)} for raw in reversed(r.lrange(key, 0, -1))]
            r.delete(key)
    return found


def sent(name: str, call: Callable[[], object]) -> list[dict]:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - a serializer or compression that is not installed
        print(f"left out {name}: {type(error).__name__}: {error}")
    return queued()


def other_keys() -> dict[str, dict]:
    """Every key that is no list (chord counters, saved groups), taken away."""
    r, found = client(), {}
    for key in sorted(r.keys("*")):
        if not key.startswith(b"_kombu"):
            found[key.decode()] = dumped(key)
            r.delete(key)
    return found


def dumped(key: bytes) -> dict:
    r, kind = client(), client().type(key).decode()
    readers = {
        "string": lambda: text(r.get(key)),
        "set": lambda: sorted(text(member) for member in r.smembers(key)),
        "zset": lambda: [[text(member), score] for member, score in r.zrange(key, 0, -1, withscores=True)],
        "hash": lambda: {text(field): text(value) for field, value in r.hgetall(key).items()},
        "list": lambda: [text(raw) for raw in r.lrange(key, 0, -1)],
    }
    return {"type": kind, "ttl": r.ttl(key), "value": readers[kind]()}


def record(task_id: str, state: str) -> dict:
    key = f"celery-task-meta-{task_id}"

    def found() -> dict | None:
        raw = client().get(key)
        if raw is None or json.loads(raw)["status"] != state:
            return None
        return {"key": key, "ttl": client().ttl(key), "raw": text(raw)}

    return wait_for(found, f"{state} of {task_id}")


@contextmanager
def listening(pattern: str) -> Iterator[list[tuple[str, bytes]]]:
    heard: list[tuple[str, bytes]] = []
    pubsub, stop = client().pubsub(ignore_subscribe_messages=True), threading.Event()
    pubsub.psubscribe(pattern)
    pubsub.get_message(timeout=0.5)

    def listen() -> None:
        while not stop.is_set():
            if message := pubsub.get_message(timeout=0.05):
                heard.append((message["channel"].decode(), message["data"]))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()
        pubsub.close()


def base64_body(raw: bytes) -> bytes:
    message = json.loads(raw)
    encoded = message["properties"].get("body_encoding") == "base64"
    return base64.b64decode(message["body"]) if encoded else message["body"].encode()
