"""Looking for messages of certain tasks among many texts, without decoding each: what an id looks like in an envelope.

A text that may be one of them is decoded by whoever searches: a nested header of the same name is no task id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

__all__ = ["may_be_one", "written"]

_ID = re.compile(rb'"id"\s*:\s*"([^"]*)"')


def written(ids: Iterable[str]) -> frozenset[bytes]:
    """All forms in which these ids may stand in JSON, by us and by kombu, without the quotes."""
    forms = set()
    for each in ids:
        ascii_only = json.dumps(each)[1:-1]
        forms.add(ascii_only.encode())
        if not each.isascii():
            forms.add(json.dumps(each, ensure_ascii=False)[1:-1].encode("utf-8", "replace"))
    return frozenset(forms)


def may_be_one(raw: bytes, forms: frozenset[bytes]) -> bool:
    """Whether the text may be a message of a task whose id is among ``written`` forms."""
    return any(found in forms for found in _ID.findall(raw))
