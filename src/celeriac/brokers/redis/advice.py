"""What is worth a line at a worker's start: how a server is set up where that may cost tasks, and the next step.

Asks INFO once, in the first round of maintenance. Whoever may not ask is told nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from celeriac.brokers.redis.link import Link
from celeriac.exceptions import OperationalError

__all__ = ["advices", "advise"]

logger = logging.getLogger("celeriac.brokers.redis")

#: The scripts need LMOVE, ZMSCORE and RPOP with a count.
_OLDEST = (6, 2)


async def advise(link: Link) -> None:
    """Log what is to be known about the server."""
    try:
        facts = await link.call("INFO")
    except OperationalError as error:  # the user may not ask; what keeps the queues in order must go on
        logger.debug("Cannot ask how the server is set up: %s", error)
        return
    for level, text in advices(_facts(facts)):
        logger.log(level, "Redis at %s %s", link.address.masked, text)


def advices(facts: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Level and text of each line. A fact that is not there, as behind some proxies, is no reason for one."""
    version = facts.get("redis_version", "")
    if version and _number(version) < _OLDEST:
        yield logging.WARNING, f"is version {version}, too old: install 6.2 or later, or Valkey"
    if facts.get("role") == "slave":
        yield (
            logging.WARNING,
            "is a replica, which refuses writes: point broker_url at the master, or name the sentinels (sentinel://)",
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        evicts = f"evicts keys when its memory is full (maxmemory-policy {policy}), and tasks with them"
        yield logging.WARNING, f"{evicts}: set it to noeviction"
    if facts.get("aof_enabled") == "0":
        yield (
            logging.INFO,
            "keeps no append-only file: a crash loses what came after its last snapshot; set appendonly to yes",
        )


def _facts(info: object) -> dict[str, str]:
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""
    return {name: value for name, _, value in (line.partition(":") for line in text.splitlines()) if value}


def _number(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)
