"""A private Redis Cluster of three nodes, or of three with a replica each; slots can be moved from one to another.

with RedisCluster() as cluster:
    cluster.node_of("celery").kill()
    cluster.move("celery", cluster.nodes[2])
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import hiredis

from celeriac.brokers.redis.cluster.slots import SLOTS, queue_tag, slot_of, tagged
from tests.servers.base import HOST, free_port, wait_until
from tests.servers.redis import RedisServer

__all__ = ["RedisCluster"]


class _Node(RedisServer):
    """One node; its name stays through restarts."""

    def __init__(self, config: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        own = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": "1000",
            # One shard that is away leaves the others alone.
            "cluster-require-full-coverage": "no",
            "cluster-port": str(free_port()),
            "repl-diskless-sync-delay": "0",
        }
        self._config |= own | dict(config)


class RedisCluster:
    """Three masters; with ``replicas`` each has one."""

    def __init__(self, *, replicas: bool = False, config: Mapping[str, str] | None = None, **options: Any) -> None:
        self.nodes = [_Node(config or {}, **options) for _ in range(3)]
        self.replicas = [_Node(config or {}, **options) for _ in range(3 * replicas)]

    def __enter__(self) -> Self:
        if self.nodes[0].running:
            return self
        with contextlib.ExitStack() as started:
            started.callback(self.close)
            for node in (*self.nodes, *self.replicas):
                node.start()
            self._join()
            started.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for node in (*self.nodes, *self.replicas):
            node.close()

    # -- use

    def url(self, *, ports: Mapping[int, int] | None = None, **query: str) -> str:
        """All nodes; ``ports`` replaces them by those of proxies."""
        first = self.nodes[0]
        account = f"{first.user or ''}:{first.password}@" if first.password else ""
        hosts = ",".join(f"{HOST}:{(ports or {}).get(node.port, node.port)}" for node in self.nodes)
        scheme = "rediss" if first.tls else "redis"
        options = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{scheme}+cluster://{account}{hosts}/{'?' if options else ''}{options}"

    def node_of(self, queue: str, prefix: str = "") -> RedisServer:
        """The node that serves a queue now."""
        return self.node_of_slot(slot_of(tagged(prefix, queue_tag(queue))))

    def node_of_slot(self, slot: int) -> RedisServer:
        for node in (*self.nodes, *self.replicas):
            if node.running:
                for first, last, master, *_ in node.command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return self._at(int(master[1]))
        raise LookupError(f"nobody serves slot {slot}")

    def command(self, key: str, *words: str | bytes | int | float) -> Any:
        """Run a command on the node of a key."""
        return self.node_of_slot(slot_of(key)).command(*words)

    def flush(self) -> None:
        """Empty all masters."""
        for node in self.nodes:
            node.start()
            node.command("FLUSHALL")

    def move(self, slot: int, to: RedisServer) -> None:
        """Move a slot with its keys, as a resharding does: key by key. Nothing where it is there."""
        if self.node_of_slot(slot) is to:
            return
        begin = self.begin_move(slot, to)
        self.move_keys(slot, begin, to)
        self.end_move(slot, begin, to)

    def begin_move(self, slot: int, to: RedisServer) -> RedisServer:
        """The slot is on its way from the node that is returned."""
        source = self.node_of_slot(slot)
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(to))
        return source

    def move_keys(self, slot: int, source: RedisServer, to: RedisServer) -> None:
        """Take all keys there."""
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            for key in keys:
                with contextlib.suppress(hiredis.ReplyError):  # it went meanwhile: NOKEY is no error
                    source.command("MIGRATE", HOST, to.port, key, 0, 5000)

    def end_move(self, slot: int, source: RedisServer, to: RedisServer) -> None:
        """All nodes know it."""
        for node in (to, source, *(each for each in self.nodes if each not in (to, source))):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", _id(to))
        # The new owner has a new epoch now. Another move before all have heard of it could give a second node the same
        # one, and two owners of one epoch contradict each other for good.
        wait_until(lambda: len({_epoch(node, _id(to)) for node in self.nodes}) == 1, 60, "all know the new owner")

    # -- inside

    def _at(self, port: int) -> RedisServer:
        return next(node for node in (*self.nodes, *self.replicas) if node.port == port)

    def _join(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "ADDSLOTSRANGE", -(-number * SLOTS // 3), -(-(number + 1) * SLOTS // 3) - 1)
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in (*self.nodes[1:], *self.replicas):
            node.command("CLUSTER", "MEET", HOST, first.port, node._config["cluster-port"])
            first.command("CLUSTER", "MEET", HOST, node.port, node._config["cluster-port"])
        everybody = (*self.nodes, *self.replicas)
        wait_until(lambda: all(self._knows(node) == len(everybody) for node in everybody), 60, "all nodes meet")
        for master, replica in zip(self.nodes, self.replicas, strict=False):
            wait_until(partial(_replicates, replica, master), 60)
        wait_until(lambda: all(self._whole(node) for node in everybody), 60, "all slots are known")

    @staticmethod
    def _knows(node: RedisServer) -> int:
        lines = node.command("CLUSTER", "NODES").decode().splitlines()
        return sum("handshake" not in line and "connected" in line for line in lines)

    def _whole(self, node: RedisServer) -> bool:
        wanted = 2 if self.replicas else 1
        slots = node.command("CLUSTER", "SLOTS")
        covered = sum(last - first + 1 for first, last, *_ in slots)
        return covered == SLOTS and all(len(nodes) == wanted for _, _, *nodes in slots)


def _id(node: RedisServer) -> str:
    name: bytes = node.command("CLUSTER", "MYID")
    return name.decode()


def _epoch(node: RedisServer, name: str) -> str:
    """The epoch of a node as another one knows it."""
    lines = (line.split() for line in node.command("CLUSTER", "NODES").decode().splitlines())
    return next((words[6] for words in lines if words[0] == name), "")


def _replicates(replica: RedisServer, master: RedisServer) -> bool:
    try:
        replica.command("CLUSTER", "REPLICATE", _id(master))
    except hiredis.ReplyError:
        return False  # they have not met yet
    return replica.info("replication").get("master_link_status") == "up"
