"""The conformance suite catches stores that are wrong about chords: each mutant breaks a sentence of the ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.brokers.memory import broker_port
from celeriac.brokers.memory import chords as chords_module
from celeriac.brokers.memory.broker_port import MemoryBroker
from celeriac.brokers.memory.chords import Chords
from celeriac.model.settle import Accept, Hold
from celeriac.testing.conformance.chords import Chords as ChordTheme
from celeriac.testing.conformance.joining import Joining
from tests.conformance.test_memory import MemoryHarness
from tests.unit.brokers.memory.test_mutants import first_failure

Patch = pytest.MonkeyPatch
Mutate = Callable[[Patch], None]
_Chord = chords_module._Chord


def drops_early_members(patch: Patch) -> None:
    join = Chords.join

    def mutant(self: Chords, part: Any, tick: float, wait: float) -> None:
        if part.chord in self._chords:
            join(self, part, tick, wait)

    patch.setattr(Chords, "join", mutant)


def keeps_bodiless_members(patch: Patch) -> None:
    join = Chords.join
    patch.setattr(Chords, "join", lambda self, part, *times: join(self, replace(part, body=part.body or b"x"), *times))


def forgets_growth(patch: Patch) -> None:
    patch.setattr(Chords, "open", _opening(lambda before, chord: setattr(chord, "grown", 0)))


def keeps_what_was_before(patch: Patch) -> None:
    patch.setattr(Chords, "open", _opening(lambda before, chord: chord.parts.update(before.parts)))


def keeps_the_holder(patch: Patch) -> None:
    patch.setattr(Chords, "open", _opening(lambda before, chord: setattr(chord, "holder", before.holder)))


def stays_done(patch: Patch) -> None:
    patch.setattr(Chords, "open", _opening(lambda before, chord: setattr(chord, "is_done", before.is_done)))


def _opening(then: Callable[[Any, Any], object]) -> Callable[..., None]:
    opening = Chords.open

    def mutant(self: Chords, new: Any, tick: float, wait: float) -> None:
        before = self._find(new.id, tick)
        opening(self, new, tick, wait)
        if before is not None:
            then(before, self._chords[new.id])

    return mutant


def keeps_the_last_value(patch: Patch) -> None:
    join = Chords.join

    def mutant(self: Chords, part: Any, tick: float, wait: float) -> None:
        join(self, part, tick, wait)
        found = self._chords.get(part.chord)
        if found is not None and (part.id, part.index) in found.parts:
            found.parts[part.id, part.index] = part.value

    patch.setattr(Chords, "join", mutant)


def tells_members_apart_by(field: str) -> Mutate:
    def mutate(patch: Patch) -> None:
        join = Chords.join
        other = {"id": {"index": 0}, "index": {"id": "m"}}[field]
        patch.setattr(Chords, "join", lambda self, part, *times: join(self, replace(part, **other), *times))

    mutate.__name__ = f"tells_members_apart_by_{field}"
    return mutate


def grows_by_every_word(patch: Patch) -> None:
    join = Chords.join

    def mutant(self: Chords, part: Any, tick: float, wait: float) -> None:
        found = self._chords.get(part.chord)
        if found is not None and (part.id, part.index) in found.parts:
            found.grown += part.grows
        join(self, part, tick, wait)

    patch.setattr(Chords, "join", mutant)


def never_grows(patch: Patch) -> None:
    patch.setattr(Chords, "grow", lambda self, chord, by, tick: None)


def gathers_as_they_came(patch: Patch) -> None:
    def mutant(found: Any, key: Any) -> Any:
        return list(found)

    patch.setattr(chords_module, "sorted", mutant, raising=False)


def ignores_holders(patch: Patch) -> None:
    patch.setattr(Chords, "_is_over", lambda self, holder, tick: True)


def holds_for_ever(patch: Patch) -> None:
    patch.setattr(Chords, "_is_over", lambda self, holder, tick: False)


def waits_for_the_time_alone(patch: Patch) -> None:
    patch.setattr(Chords, "_is_over", lambda self, holder, tick: holder.until <= tick)


def takes_any_token_for_a_lease(patch: Patch) -> None:
    patch.setattr(Chords, "_is_over", lambda self, holder, tick: holder.token not in self._leases)


def renews_no_token(patch: Patch) -> None:
    take = Chords.take

    def mutant(self: Chords, chord: str, token: str, tick: float, wait: float) -> bool:
        found = self._find(chord, tick)
        if found is not None and found.holder is not None and found.holder.token == token:
            return found.is_complete()
        return take(self, chord, token, tick, wait)

    patch.setattr(Chords, "take", mutant)


def closes_for_anybody(patch: Patch) -> None:
    patch.setattr(Chords, "holds", lambda self, closing, tick: self._find(closing.chord, tick) is not None)


def closes_within_its_time_only(patch: Patch) -> None:
    holds = Chords.holds

    def mutant(self: Chords, closing: Any, tick: float) -> bool:
        return holds(self, closing, tick) and self._chords[closing.chord].holder.until > tick  # type: ignore[union-attr]

    patch.setattr(Chords, "holds", mutant)


def forgets_what_is_done(patch: Patch) -> None:
    patch.setattr(chords_module, "CHORD_DONE", 0.0)


def remembers_what_is_done(patch: Patch) -> None:
    patch.setattr(chords_module, "CHORD_DONE", 1e9)


def never_expires(patch: Patch) -> None:
    patch.setattr(Chords, "_find", lambda self, chord, tick: self._chords.get(chord))


def renews_no_life(patch: Patch) -> None:
    renew = _Chord.renew
    patch.setattr(_Chord, "renew", lambda self, tick: renew(self, tick) if self.until is None else None)


def looks_at_once(patch: Patch) -> None:
    look_at = Chords._look_at
    patch.setattr(Chords, "_look_at", lambda self, chord_id, chord, when: look_at(self, chord_id, chord, 0.0))


def looks_once(patch: Patch) -> None:
    look_at = Chords._look_at

    def mutant(self: Chords, chord_id: str, chord: Any, when: float) -> None:
        look_at(self, chord_id, chord, 1e12 if chord.holder is not None else when)

    patch.setattr(Chords, "_look_at", mutant)


def looks_seldom(patch: Patch) -> None:
    patch.setattr(chords_module, "CHORD_LOOK", 60.0)


def looks_often(patch: Patch) -> None:
    patch.setattr(chords_module, "CHORD_LOOK", 5.0)


def ignores_the_limit(patch: Patch) -> None:
    overdue = Chords.overdue
    patch.setattr(Chords, "overdue", lambda self, token, limit, *times: overdue(self, token, 1000, *times))


def settles_what_completes(patch: Patch) -> None:
    complete = MemoryBroker._complete

    def mutant(self: MemoryBroker, chords: Any, token: str) -> bool:
        completes = complete(self, chords, token)
        if completes:
            self._server.queues.leases.pop(token, None)
        return completes

    patch.setattr(MemoryBroker, "_complete", mutant)


def completes_with_the_first(patch: Patch) -> None:
    last_to_join = broker_port.last_to_join
    patch.setattr(broker_port, "last_to_join", lambda completions, joining: last_to_join(completions, joining[::-1]))


def completes_with_all(patch: Patch) -> None:
    def mutant(completions: Any, joining: Any) -> Any:
        return {index: [part.chord for part in completions[index].parts] for index in joining}

    patch.setattr(broker_port, "last_to_join", mutant)


def fences_no_closing(patch: Patch) -> None:
    is_fenced = MemoryBroker._is_fenced
    patch.setattr(
        MemoryBroker, "_is_fenced", lambda self, each, ending: is_fenced(self, replace(each, closes=None), ending)
    )


def fences_no_holding(patch: Patch) -> None:
    is_fenced = MemoryBroker._is_fenced

    def mutant(self: MemoryBroker, completion: Any, ending: Any) -> bool:
        if isinstance(completion.settlement, Hold):
            completion = replace(completion, settlement=Hold())
        return is_fenced(self, completion, ending)

    patch.setattr(MemoryBroker, "_is_fenced", mutant)


def ends_what_is_held(patch: Patch) -> None:
    write = MemoryBroker._write

    def mutant(self: MemoryBroker, completion: Any, messages: Any) -> None:
        write(self, completion, messages)
        if isinstance(completion.settlement, Hold) and completion.settlement.delivery is not None:
            self._end(Accept(completion.settlement.delivery), [])

    patch.setattr(MemoryBroker, "_write", mutant)


def writes_no(field: str) -> Mutate:
    def mutate(patch: Patch) -> None:
        write = MemoryBroker._write
        empty = None if field == "closes" else ()
        patch.setattr(
            MemoryBroker, "_write", lambda self, each, messages: write(self, replace(each, **{field: empty}), messages)
        )

    mutate.__name__ = f"writes_no_{field}"
    return mutate


def takes_a_late_call_for_a_new_one(patch: Patch) -> None:
    patch.setattr(_Chord, "is_opened_as", lambda self, new: False)


def opens_last(patch: Patch) -> None:
    write = MemoryBroker._write

    def mutant(self: MemoryBroker, completion: Any, messages: Any) -> None:
        write(self, replace(completion, opens=()), messages)
        for chord in completion.opens:
            self._server.chords._chords.pop(chord.id, None)
            self._server.chords.open(chord, self._server.clock.monotonic(), 10.0)

    patch.setattr(MemoryBroker, "_write", mutant)


MUTANTS: list[tuple[Mutate, type]] = [
    *(
        (mutate, ChordTheme)
        for mutate in (
            drops_early_members,
            keeps_bodiless_members,
            forgets_growth,
            keeps_what_was_before,
            takes_a_late_call_for_a_new_one,
            keeps_the_holder,
            stays_done,
            keeps_the_last_value,
            tells_members_apart_by("id"),
            tells_members_apart_by("index"),
            grows_by_every_word,
            never_grows,
            gathers_as_they_came,
            ignores_holders,
            holds_for_ever,
            renews_no_token,
            closes_for_anybody,
            closes_within_its_time_only,
            forgets_what_is_done,
            remembers_what_is_done,
            never_expires,
            renews_no_life,
            looks_at_once,
            looks_once,
            ignores_the_limit,
        )
    ),
    *(
        (mutate, Joining)
        for mutate in (
            waits_for_the_time_alone,
            takes_any_token_for_a_lease,
            looks_seldom,
            looks_often,
            settles_what_completes,
            completes_with_the_first,
            completes_with_all,
            fences_no_closing,
            fences_no_holding,
            ends_what_is_held,
            writes_no("others"),
            writes_no("opens"),
            writes_no("parts"),
            writes_no("closes"),
            opens_last,
        )
    ),
]


@pytest.mark.parametrize(
    ("mutate", "theme"), MUTANTS, ids=[f"{mutate.__name__}-{theme.__name__}" for mutate, theme in MUTANTS]
)
def test_the_suite_catches_a_store_that(monkeypatch: Patch, mutate: Mutate, theme: type) -> None:
    monkeypatch.setattr(MemoryHarness, "late", 0.1)
    mutate(monkeypatch)
    failure = first_failure(theme)
    assert failure is not None, f"{theme.__name__} does not notice a store that {mutate.__name__}"


@pytest.mark.parametrize("theme", [ChordTheme, Joining], ids=lambda theme: theme.__name__)
def test_the_reference_is_right_about_chords(theme: type) -> None:
    assert first_failure(theme) is None
