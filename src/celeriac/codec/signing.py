"""Signatures under a shared key: over whole messages, stored records, remote commands (``docs/reference/security.md``).

HMAC-SHA256. The first key signs, all verify: that is how keys are changed without a stop. A signature says what it
stands for (a message, the result of this task, a member of that chord), so none can be put in another's place. Knows
bytes and values only; the sender and the workers ask ``signer_of`` whether there is a key at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from celeriac.codec import json
from celeriac.exceptions import CeleryError, ImproperlyConfigured, SecurityError
from celeriac.model.message import MARK, Message

__all__ = ["SIGNATURE", "Signer", "control_signer_of", "seal", "signer_of", "unseal"]

#: Header of a signed message, and key of a signed command.
SIGNATURE = "celeriac_signature"
#: What is behind a form of its own could be read otherwise later; the number says which form was signed.
_FORM = "1:"
_DIGITS = 64
#: Headers that restores write, here and in Celery's workers.
_NOT_SIGNED = (SIGNATURE, MARK, "redelivered")
_SHORTEST = 16
#: Protocol 2's, ``compression`` and the signature.
_USUAL_HEADERS = 21
_JSON_TYPES = frozenset({str, int, float, bool, type(None), list, dict})
_JSON_TAIL = b',"signature":"' + _FORM.encode()
_TAIL = b"\n#celeriac:" + _FORM.encode()
_HOW = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


def signer_of(conf: Any) -> Signer | None:
    """What ``signing_key`` asks for; None: nothing is signed. Raises ``ImproperlyConfigured`` for unusable keys."""
    value = conf.signing_key
    return _signer(_keys("signing_key", value)) if value else None


def control_signer_of(conf: Any) -> Signer | None:
    """What signs remote commands: ``control_key``, else ``signing_key``. Raises ``ImproperlyConfigured``."""
    value = conf.control_key
    return _signer(_keys("control_key", value)) if value else signer_of(conf)


def _keys(name: str, value: Any) -> tuple[bytes, ...]:
    keys = []
    for key in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(key, (str, bytes)):
            raise ImproperlyConfigured(f"{name} must be text or bytes, or a list of them, not {type(key).__name__}")
        data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        if len(data) < _SHORTEST:
            raise ImproperlyConfigured(f"{name} has a key of less than {_SHORTEST} bytes: {_HOW}")
        keys.append(data)
    return tuple(keys)


@lru_cache(maxsize=16)
def _signer(keys: tuple[bytes, ...]) -> Signer:
    return Signer(*keys)


def seal(signer: Signer | None, purpose: str, place: str, data: bytes) -> bytes:
    """``data`` with its signature, when there is a signer: see ``Signer.seal``."""
    return data if signer is None else signer.seal(purpose, place, data)


def unseal(signer: Signer | None, purpose: str, place: str, data: bytes) -> bytes:
    """``data`` as it was before ``seal``. Without a signer nothing is checked; with one raises ``SecurityError``."""
    if signer is not None:
        return signer.unseal(purpose, place, data)
    at = len(data) - _DIGITS
    return data[: at - len(_TAIL)] if data.startswith(_TAIL, max(at - len(_TAIL), 0)) else data


class Signer:
    """Signs with the first of its keys, verifies with all. Thread-safe."""

    __slots__ = ("_equal", "_hmac", "_keys")

    def __init__(self, *keys: bytes) -> None:
        import hmac  # 4 ms, for those who have a key

        self._hmac, self._equal = hmac.digest, hmac.compare_digest
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keys)} keys>"

    # -- messages

    def sign(self, message: Message) -> Message:
        """The message with its signature in a header that Celery ignores. It must not be changed afterwards, not even
        its queue. Signing again replaces the signature."""
        # As the receiver will see them: keys that are numbers become texts on the way.
        headers = _decode_headers(message.headers)
        signature = self._digest(0, _message_text(message, headers))
        return replace(message, headers={**message.headers, SIGNATURE: f"{_FORM}{signature}"})

    def refusal(self, message: Message) -> str | None:
        """Why a received message is not to be trusted, in a few words; None: it is as its signer sent it."""
        claimed = message.headers.get(SIGNATURE)
        if claimed is None:
            return "signature missing"
        try:
            text = _message_text(message, _as_sent(message.headers))
        except (CeleryError, TypeError, ValueError, RecursionError):
            return "signature invalid"
        return None if self._matches(claimed, text) else "signature invalid"

    # -- stored bytes

    def seal(self, purpose: str, place: str, data: bytes) -> bytes:
        """``data`` with a signature for this purpose (``result``, ``part`` …) and place (an id).

        In a JSON object it is one key more, so that others can still read it; anywhere else it follows the data.
        """
        digest = self._digest(0, _stored_text(purpose, place, data)).encode()
        if data.startswith(b"{") and data.endswith(b"}") and len(data) > 2:
            return b"".join((data[:-1], _JSON_TAIL, digest, b'"}'))
        return b"".join((data, _TAIL, digest))

    def unseal(self, purpose: str, place: str, data: bytes) -> bytes:
        """The bytes that were sealed, exactly. Raises ``SecurityError`` unless they were, for this purpose and place,
        with one of the keys."""
        at = len(data) - _DIGITS
        if data.startswith(_TAIL, max(at - len(_TAIL), 0)):
            kept, digest = data[: at - len(_TAIL)], data[at:]
        elif data.endswith(b'"}') and data.startswith(_JSON_TAIL, max(at - 2 - len(_JSON_TAIL), 0)):
            kept, digest = data[: at - 2 - len(_JSON_TAIL)] + b"}", data[at - 2 : -2]
        else:
            raise SecurityError(f"{purpose} of {place!r:.80}: signature missing; was it stored without signing_key?")
        if self._matches(_FORM + digest.decode("latin-1"), _stored_text(purpose, place, kept)):
            return kept
        raise SecurityError(
            f"{purpose} of {place!r:.80}: signature invalid; it was changed, or signed with another key"
        )

    # -- commands

    def command(self, request: Mapping[str, Any]) -> str:
        """The signature of all that is in a remote command. Raises ``EncodeError`` for what JSON cannot hold."""
        return _FORM + self._digest(0, _command_text(request))

    def is_command(self, request: Mapping[str, Any]) -> bool:
        """Whether the command carries its signature."""
        try:
            return self._matches(request.get(SIGNATURE), _command_text(request))
        except (CeleryError, TypeError, ValueError, RecursionError):
            return False

    # --

    def _digest(self, key: int, text: bytes) -> str:
        return self._hmac(self._keys[key], text, "sha256").hex()

    def _matches(self, claimed: Any, text: bytes) -> bool:
        if not isinstance(claimed, str) or len(claimed) != len(_FORM) + _DIGITS or not claimed.isascii():
            return False
        given = claimed.encode()
        # All keys, whichever fits: how long it takes says nothing.
        found = [self._equal(given, (_FORM + self._digest(at, text)).encode()) for at in range(len(self._keys))]
        return any(found)


def _message_text(message: Message, headers: Mapping[str, Any]) -> bytes:
    """Everything that a message says, in one form whoever carried it."""
    kept = {key: value for key, value in headers.items() if key not in _NOT_SIGNED}
    facts = (
        "message",
        message.queue,
        message.content_type,
        message.content_encoding,
        message.exchange,
        message.routing_key or message.queue,
        message.priority,
        message.correlation_id or message.id,
        message.reply_to,
        message.delivery_mode,
        kept,
    )
    return _canonical(facts) + b"\0" + message.body


def _stored_text(purpose: str, place: str, data: bytes) -> bytes:
    return b"\0".join((_canonical((purpose, place)), data))


def _command_text(request: Mapping[str, Any]) -> bytes:
    facts = {key: value for key, value in request.items() if key != SIGNATURE}
    return _canonical(("command", json.loads(json.dumps(facts), resolve=False)))


def _as_sent(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Received headers with their tags back. Only what callers put into headers may have any: the look costs 10 µs."""
    if (
        len(headers) <= _USUAL_HEADERS
        and not headers.get("stamps")
        and _JSON_TYPES.issuperset(map(type, headers.values()))
    ):
        return headers
    tagged: Mapping[str, Any] = json.plain(headers)
    return tagged


def _decode_headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = _decode(_encode(headers))
    except (UnicodeEncodeError, TypeError):  # lone surrogates, in argsrepr for instance; keys that are numbers
        found = json.loads(json.dumps(headers), resolve=False)
    return found


def _canonical(value: Any) -> bytes:
    """JSON text without a NUL, the same for equal values."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):  # lone surrogates and huge numbers are for Python's JSON
        import json as stdlib

        return stdlib.dumps(value, sort_keys=True, separators=(",", ":")).encode()
