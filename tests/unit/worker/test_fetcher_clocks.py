"""A fetcher whose clock is wrong: the broker's counts, and nothing is claimed a thousand times a second."""

from __future__ import annotations

