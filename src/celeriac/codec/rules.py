"""Rules of the fleet as their readers believe them: where there is a ``control_key``, only those that it has signed.

Orders are commands that lie in the broker instead of being called out. Whoever can write there could revoke, end or
pause anything; so a rule's value is signed, for its key. Called by all who read rules: ``worker/rules.py``,
``client/orders.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from celeriac.codec.escape import one_line
from celeriac.codec.signing import Signer, unseal
from celeriac.exceptions import SecurityError
from celeriac.model.rules import Rule

__all__ = ["RULE", "trusted"]

logger = logging.getLogger("celery.worker")

#: What the signature of a rule's value is for; its place is the rule's key.
RULE = "rule"


def trusted(signer: Signer | None, rules: Sequence[Rule]) -> list[Rule]:
    """The rules with their values as they were before ``seal``; those that no key of ours has signed are left out, and
    told of in one line. That a rule was dropped is believed: who can delete from a broker can delete."""
    kept: list[Rule] = []
    refused: list[str] = []
    for rule in rules:
        if rule.value is None:
            kept.append(rule)
            continue
        try:
            value = unseal(signer, RULE, rule.key, rule.value)
        except SecurityError:
            refused.append(rule.key)
            continue
        kept.append(rule if value is rule.value else replace(rule, value=value))
    if refused:
        logger.warning(
            "%d rules of the fleet are not obeyed, first %s: "
            "they are not signed with our control_key (or signing_key); "
            "if they are ours, give the orders again from an app that has the key",
            len(refused),
            one_line(refused[0], 200),
        )
    return kept
