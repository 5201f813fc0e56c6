"""Names of nodes, and the ``%``-letters in them and in file names, as Celery has them.

Pure: the host's name is passed in. Called by the command line and by whoever opens a log file.
"""

from __future__ import annotations

import re

__all__ = ["DEFAULT", "expand", "fill", "node_name"]

_LETTER = re.compile(r"%(.)", re.DOTALL)
#: The name part of a node that was given none.
DEFAULT = "celery"


def node_name(text: str | None, host: str, *, default: str = DEFAULT) -> str:
    """The full name ``name@host`` of a node called ``text``: ``w1@%h``, ``w1@other``, a bare host, or None.

    Text without ``@`` is a host, as in Celery: ``-n box7`` makes ``celery@box7``.
    """
    text = text or ""
    name, _at, node_host = text.partition("@") if "@" in text else ("", "", text)
    short, _, domain = host.partition(".")
    letters = {"h": host, "n": short, "d": domain, "i": "0", "I": ""}
    return fill(f"{name or default}@{node_host or host}", letters)


def expand(text: str, node: str, *, index: int = 0) -> str:
    """``text`` (a file name) with ``%n`` ``%h`` ``%d`` ``%p`` of the node, and ``%i`` ``%I`` of the process.

    ``index`` is 0 for the main process and the agent, the number of the child else; ``%I`` is ``-1`` for child 1 and
    nothing for the main process.
    """
    name, _, host = node.partition("@")
    letters = {
        "p": node,
        "n": name,
        "h": host,
        "d": host.partition(".")[2],
        "i": str(index),
        "I": f"-{index}" if index else "",
    }
    return fill(text, letters)


def fill(text: str, letters: dict[str, str]) -> str:
    """Unknown letters stay, ``%%`` is a percent sign."""
    return _LETTER.sub(lambda found: letters.get(found[1], "%" if found[1] == "%" else found[0]), text)
