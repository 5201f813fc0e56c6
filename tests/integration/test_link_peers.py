"""The socket between an agent and its children: strangers are turned away, on both sides."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from celeriac.worker.link import LinkServer, _connect

NOBODY = 65534
STRANGER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(60)
sock.connect("\\0" + sys.argv[1])
try:
    sock.sendall(b'{"n": 1, "answer": "forged"}\\n')
    print(len(sock.recv(1000)))
except (BrokenPipeError, ConnectionResetError):
    print(0)
"""
LISTENER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0" + sys.argv[1])
sock.listen()
print("listening", flush=True)
sys.stdin.read()
"""


def started(name: str) -> str:
    """What somebody reads who connects to the agent: bytes of the order that every child gets."""
    command = [sys.executable, "-I", "-S", "-c", STRANGER, name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def as_nobody(name: str) -> str:
    """The same in a fork of this process that has become another user, who may not be able to run our interpreter."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.dup2(writing, 1)
            sys.argv = ["-", name]
            exec(STRANGER.replace("print(", "os.write(1, b'%d' % "), {"os": os})
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(pid, 0)
    return text


async def told_to(name: str, stranger: Callable[[str], str]) -> str:
    server = LinkServer(name)
    server.keep("revoke", {"ids": ["secret"]})
    serving = asyncio.ensure_future(server.serve())
    await asyncio.sleep(0)
    try:
        told = await asyncio.to_thread(stranger, name)
        # The agent still serves its own.
        reader, writer = await _connect(name)
        assert b"secret" in await reader.readline()
        assert len(server._writers) == 1
        writer.close()
        return told
    finally:
        serving.cancel()


def test_a_process_that_the_supervisor_did_not_fork() -> None:
    """Started by a task, for instance: same user, another parent."""
    assert asyncio.run(told_to(f"celeriac-test-{uuid4()}", started)) == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user() -> None:
    assert asyncio.run(told_to(f"celeriac-test-{uuid4()}", as_nobody)) == "0"


@contextmanager
def squatter(name: str) -> Iterator[None]:
    """Somebody else has taken the agent's name."""
    command = [sys.executable, "-I", "-S", "-c", LISTENER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_a_child_does_not_obey_an_agent_that_is_none() -> None:
    name = f"celeriac-test-{uuid4()}"
    with squatter(name), pytest.raises(PermissionError, match="somebody else listens"):
        asyncio.run(_connect(name))
