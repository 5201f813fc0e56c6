"""A redis-server of the benchmark's own: a free port on loopback, a temporary directory, nothing written to disk."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.resp import Redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    port: int
    redis: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def private_redis() -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="bench-redis-")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        redis = _connect(port)
        yield Server(port=port, redis=redis)
        redis.close()
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _connect(port: int) -> Redis:
    deadline = time.monotonic() + 10
    while True:
        try:
            return Redis(port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
