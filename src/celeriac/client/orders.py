"""Orders to the whole fleet that outlive its workers: tasks that are revoked, queues that are paused.

They are rules beside the queues (``model/rules.py``), written in one blocking call. Called by ``control.py``.
"""

from __future__ import annotations

import getpass
import socket
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.client import resolver
from celeriac.client.signal_names import signal_number
from celeriac.codec.rules import RULE, trusted
from celeriac.codec.signing import control_signer_of, seal
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured
from celeriac.model.rules import PAUSE, REVOKE, Order, RuleChange, decode_order, encode_order, stamp_keys
from celeriac.ports import RulesDesk

_NEXT = "set ledger_url (or result_backend) to a server that keeps one, such as redis://"

__all__ = ["pause", "paused", "resume", "revoke", "revoke_stamped"]


def revoke(app: Any, ids: Iterable[str], **order: Any) -> None:
    """Write that these tasks are revoked, for ``task_revoke_expires`` seconds. Raises ``OperationalError``."""
    _revoke(app, [f"{REVOKE}{each}" for each in ids], order)


def revoke_stamped(app: Any, headers: Mapping[str, Any], **order: Any) -> None:
    """The same for tasks with one of these stamps."""
    _revoke(app, stamp_keys(headers), order)


def _revoke(app: Any, keys: Iterable[str], order: Mapping[str, Any]) -> None:
    signal_number(order["signal"])
    desk = app.sender.publisher
    if isinstance(desk, RulesDesk):
        life = app.conf.seconds("task_revoke_expires")
        desk.set_rules(_changes(app, keys, life, order), timeout=_timeout(app))
    else:
        warnings.warn(
            f"{resolver.mask(app.sender.url)} keeps no ledger, so only the workers that run now hear of what is "
            f"revoked: {_NEXT}",
            CeleryWarning,
            stacklevel=4,
        )


def pause(app: Any, queues: Iterable[str], **order: Any) -> None:
    """Write that no worker takes tasks from these queues, until ``resume``. Raises ``OperationalError``."""
    keys = [PAUSE + queue for queue in queues]
    _desk(app).set_rules(_changes(app, keys, None, order), timeout=_timeout(app))


def resume(app: Any, queues: Iterable[str]) -> None:
    """The end of ``pause``. Raises ``OperationalError``."""
    _desk(app).set_rules([RuleChange(PAUSE + queue, None) for queue in queues], timeout=_timeout(app))


def paused(app: Any) -> dict[str, Order]:
    """The paused queues, and who paused them, why and when, as far as workers obey. Raises ``OperationalError``."""
    read = _desk(app).rules(PAUSE, timeout=_timeout(app))
    rules = trusted(control_signer_of(app.conf), read.rules)
    return {rule.key.removeprefix(PAUSE): decode_order(rule.value or b"") for rule in rules}


def _desk(app: Any) -> RulesDesk:
    desk = app.sender.publisher
    if not isinstance(desk, RulesDesk):
        raise ImproperlyConfigured(
            f"{resolver.mask(app.sender.url)} keeps no ledger, so its queues cannot be paused: stop their workers, or "
            f"{_NEXT}"
        )
    return desk


def _changes(app: Any, keys: Iterable[str], life: float | None, order: Mapping[str, Any]) -> list[RuleChange]:
    signer, value = control_signer_of(app.conf), _value(**order)
    return [RuleChange(key, seal(signer, RULE, key, value), life) for key in keys]


def _value(*, by: str | None, reason: str, **more: Any) -> bytes:
    return encode_order(Order(by=_myself() if by is None else by, reason=reason, at=time.time(), **more))


def _myself() -> str:
    """Who gives an order, unless somebody is named: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without a user data base
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _timeout(app: Any) -> float:
    return float(app.conf.seconds("broker_publish_timeout"))
