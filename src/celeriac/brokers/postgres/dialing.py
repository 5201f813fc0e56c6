"""Which addresses a connection tries, one after the other, each for its share of the time.

libpq tries the next address of a host only when one has failed, and one that answers nothing at all does not fail
before the time is over. So names are resolved here, and libpq is given one address at a time: the host's name stays,
for certificates. Used by both kinds of connections.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from celeriac.brokers.dialing import Place, resolve, resolved

__all__ = ["attempts", "attempts_on_loop"]

Parameters = Mapping[str, str]


def attempts(parameters: Parameters) -> list[Parameters]:
    """What to connect to, in this order; a name that nobody knows is left to libpq, whose error says more."""
    found: list[Parameters] = []
    for each in _hosts(parameters):
        try:
            found += _at(each, resolve(each["host"], None) if _is_name(each) else ())
        except OSError:
            found.append(each)
    return found


async def attempts_on_loop(parameters: Parameters) -> list[Parameters]:
    """The same on a loop."""
    found: list[Parameters] = []
    for each in _hosts(parameters):
        try:
            found += _at(each, await resolved(each["host"], None) if _is_name(each) else ())
        except OSError:
            found.append(each)
    return found


def _hosts(parameters: Parameters) -> list[Parameters]:
    """One for each host of a list. ``prefer-standby`` goes through the list twice: that is left to libpq."""
    hosts = parameters.get("host", "").split(",")
    if len(hosts) == 1 or "hostaddr" in parameters or parameters.get("target_session_attrs") == "prefer-standby":
        return [parameters]
    ports = parameters.get("port", "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        return [parameters]  # libpq says what is wrong
    found: list[Parameters] = []
    for host, port in zip(hosts, ports, strict=True):
        rest = {name: value for name, value in parameters.items() if name != "port"}
        found.append({**rest, "host": host, **({"port": port} if port else {})})
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(found)
    return found


def _is_name(parameters: Parameters) -> bool:
    """Not a socket's path, nor a list, nor an address that was given."""
    host = parameters.get("host", "")
    return bool(host) and host[0] not in "/@" and "," not in host and "hostaddr" not in parameters


def _at(parameters: Parameters, places: Sequence[Place]) -> list[Parameters]:
    """One for each address, where there are several."""
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in places))
    if len(addresses) < 2:
        return [parameters]
    return [{**parameters, "hostaddr": address} for address in addresses]
