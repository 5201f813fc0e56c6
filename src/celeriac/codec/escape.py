"""Foreign text in log lines: what comes from a message or over remote control must not look like a line of our own.

Called wherever a log line, a dead letter or a terminal shows names, ids or errors that somebody else has chosen.
"""

from __future__ import annotations

from typing import Any

__all__ = ["block", "lines", "one_line"]

#: Controls, the line ends of Unicode, what turns the direction of text, halves of pairs, and the byte order mark.
_CONTROLS = [
    *range(32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A),
    *range(0xD800, 0xE000), 0xFEFF,
]  # fmt: skip
_CONTROL = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS}


def one_line(text: Any, limit: int | None = None) -> str:
    """``str(text)`` with control characters escaped, cut to ``limit`` characters. Never raises."""
    try:
        shown = str(text)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise
        shown = f"<{type(text).__name__}: its str() raises>"
    if limit is not None and len(shown) > limit:
        shown = f"{shown[:limit]}..."
    return shown if shown.isascii() and shown.isprintable() else shown.translate(_CONTROL)


def lines(text: str) -> str:
    """Text of several lines for a terminal: the line breaks stay."""
    return "\n".join(map(one_line, text.split("\n")))


def block(text: str) -> str:
    """Lines of a traceback, indented: what a message put into an exception cannot look like a record of its own."""
    return "\n".join(f"  {one_line(line)}" for line in text.rstrip("\n").split("\n"))
