"""From a complete chord to the completion that ends it: its body sent, or failed with everything behind it.

On a thread aside of the I/O loop, for routers and errbacks of the user's run here. Decides nothing itself: whether the
body runs is ``model/chord.py``'s word, what will never run is ``model/workflow.py``'s. Called by ``closer.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.app.request import Request
from celeriac.canvas.signatures import as_list
from celeriac.codec.chords import decode_body, decode_part, decode_shape
from celeriac.codec.escape import one_line
from celeriac.codec.signing import signer_of, unseal
from celeriac.exceptions import CeleryError, ChordError, ContentDisallowed, SecurityError
from celeriac.model.chord import Closing, Gathered, gathered
from celeriac.model.message import Malformed, Message
from celeriac.model.plan import Send
from celeriac.model.settle import Completion, Hold
from celeriac.model.workflow import Abandoned, Join, abandoned
from celeriac.worker.follow_ups import FollowUps, Sent
from celeriac.worker.records import Recorder

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Joiner"]

logger = logging.getLogger("celery.worker")


class Joiner:
    """Concludes chords of one app."""

    def __init__(self, app: Celery, follow_ups: FollowUps, recorder: Recorder) -> None:
        self._app = app
        self._follow_ups = follow_ups
        self._recorder = recorder
        conf = app.conf
        self._accept = frozenset(conf.accept_content)
        self._accept_result = frozenset(conf.result_accept_content or ())
        self._serializer: str = conf.result_serializer
        self._signer = signer_of(conf)

    def conclude(self, chord: Gathered, hold: Hold) -> Completion | None:
        """What is to be written for a complete chord: body or failure, and that it is done. None: nothing can be done
        here, another node may know better. Raises nothing."""
        closing = Closing(chord.chord, chord.token)
        try:
            encoded = unseal(self._signer, "chord", chord.chord, chord.body)
            body = decode_body(encoded, accept=self._accept)
        except (ContentDisallowed, SecurityError) as error:
            logger.error("Chord %s is complete, but its body is refused here: %s", one_line(chord.chord), error)
            return None
        except CeleryError as error:
            logger.error(
                "Chord %s is complete, but its body cannot be read, so it is dropped: %s", one_line(chord.chord), error
            )
            return Completion(settlement=hold, closes=closing)
        try:
            return self._concluded(chord, body, hold, closing)
        except Exception as error:
            # Whatever somebody has put into the messages: a chord must not stop those who write the others.
            logger.error("Chord %s cannot be ended, so it is dropped: %r", one_line(chord.chord), error, exc_info=error)
            return Completion(settlement=hold, closes=closing)

    def _concluded(self, chord: Gathered, body: Mapping[str, Any], hold: Hold, closing: Closing) -> Completion:
        try:
            values = self._values(chord)
        except CeleryError as error:
            values = ChordError(f"the results of its header cannot be read: {error}")
        sent = self._follow_ups.sent()
        if isinstance(values, list):
            try:
                self._follow_ups.of_any([Send(body, (values,), _lineage(hold))], sent)
            except Exception as error:  # noqa: BLE001 - user code in routers and apply_async
                values, sent = ChordError(f"Callback error: {error!r}"), self._follow_ups.sent()
            else:
                return Completion(settlement=hold, publish=sent.messages, opens=sent.chords, closes=closing)
        return self._failed(body, values, hold, closing, sent, _content_type(chord.body))

    def _values(self, chord: Gathered) -> list[Any] | ChordError:
        accept, serializer = self._accept_result, self._serializer
        signer, name = self._signer, chord.chord
        values = [unseal(signer, "part", name, part) for part in chord.parts]
        parts = [decode_part(value, accept=accept, serializer=serializer) for value in values]
        if signer is not None and len({part.id for part in parts}) < len(parts):
            raise SecurityError("a member's end was put in another's place")
        return gathered(parts, decode_shape(unseal(signer, "shape", name, chord.shape)) if chord.shape else None)

    def _failed(
        self,
        body: Mapping[str, Any],
        error: ChordError,
        hold: Hold,
        closing: Closing,
        sent: Sent,
        content_type: str,
    ) -> Completion:
        """Body and all behind it are stored as failed; errbacks are called once; chords around it hear of it."""
        logger.error("Chord %s failed: %s", one_line(closing.chord), one_line(error))
        behind = abandoned([body])
        options = body.get("options")
        options = options if isinstance(options, Mapping) else {}
        self._call_errbacks(body, options, error, sent)
        joins = [Join(each.group or "", each.id, each.index, each.chord, states.FAILURE, error) for each in behind]
        return Completion(
            settlement=hold,
            publish=sent.messages,
            opens=sent.chords,
            others=self._recorder.others(_once(behind), states.FAILURE, error),
            parts=self._recorder.parts(
                (join for join in joins if join.body is not None and join.chord), content_type=content_type
            ),
            closes=closing,
        )

    def _call_errbacks(
        self, body: Mapping[str, Any], options: Mapping[str, Any], error: ChordError, sent: Sent
    ) -> None:
        errbacks = as_list(options.get("link_error"))
        if not errbacks:
            return
        body_id = options.get("task_id")
        request = Request(
            id=body_id,
            task=body.get("task"),
            args=body.get("args"),
            kwargs=body.get("kwargs"),
            errbacks=errbacks,
            root_id=options.get("root_id"),
            group=options.get("group_id"),
            called_directly=False,
            delivery_info={},
        )
        lineage = {"parent_id": body_id, "root_id": options.get("root_id") or body_id}
        sends = [Send(errback, (body_id,), lineage) for errback in errbacks]
        self._follow_ups.of_failure(sends, request, error, "", sent)


def _lineage(hold: Hold) -> dict[str, Any]:
    """The member that completed the chord is the parent of the body."""
    message: Message | Malformed | None = hold.delivery.message if hold.delivery is not None else None
    if not isinstance(message, Message):
        return {}
    return {"parent_id": message.id, "root_id": message.headers.get("root_id") or message.id}


def _once(behind: tuple[Abandoned, ...]) -> list[Abandoned]:
    return list({each.id: each for each in behind}.values())


def _content_type(body: bytes) -> str:
    """Of the message that brought an encoded body, where that matters (``codec/chords.py``)."""
    name, separator, _ = body.partition(b"\0")
    return name.decode("ascii", "replace") if separator and not body.startswith(b"{") else "application/json"
