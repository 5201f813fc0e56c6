"""Remote commands as they go out: who asks, and the signature where there is a key. Made for ``client/control.py``.

A signed command says when it was issued and until when it counts, whom it is for and where its answers go; its ticket
is its nonce. ``admission.py`` is the other side.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping
from typing import Any

from celeriac.codec.envelope import new_id
from celeriac.codec.signing import SIGNATURE, Signer

__all__ = ["LIFE", "REPLY_EXCHANGE", "signed", "written_by"]

REPLY_EXCHANGE = "reply.celery.pidbox"
#: Seconds for which a signed command counts, so that clocks may differ by a little.
LIFE = 60.0


def written_by() -> dict[str, Any]:
    """Who this process is, for the workers' logs. A claim, unless the command is signed."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container
        user = str(uid)
    return {"user": user, "host": os.uname().nodename, "pid": os.getpid()}


def signed(request: Mapping[str, Any], signer: Signer, *, reply: bool) -> dict[str, Any]:
    """The request with ticket, reply address and times, signed as a whole. Raises ``EncodeError``."""
    now = time.time()
    complete = {**request, "ticket": new_id(), "issued": now, "until": now + LIFE}
    if reply:
        complete["reply_to"] = {"exchange": REPLY_EXCHANGE, "routing_key": new_id()}
    return {**complete, SIGNATURE: signer.command(complete)}
