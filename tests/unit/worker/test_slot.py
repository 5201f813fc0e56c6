"""What a dead child leaves in its slot: the right task, or none; never nonsense, never an error."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.worker import slot as slot_module
from celeriac.worker.slot import CONNECTING, FREE, READY, SLOT_SIZE, STARTING, Running, Slot, Slots

#: What is free for the two texts.
ROOM = slot_module._TEXT_MAX


def fresh() -> Slot:
    return Slot(mmap.mmap(-1, SLOT_SIZE), 0)


def test_begin_and_end() -> None:
    slot = fresh()
    assert slot.running() is None
    slot.begin("o:1", "id-1", 10.0, 15.0, 5.0)
    assert slot.running() == Running("o:1", "id-1", 10.0, 15.0, 5.0)
    slot.end()
    assert slot.running() is None
    slot.begin("o:2", "x", 20.0, 0.0, 0.0)
    assert slot.running() == Running("o:2", "x", 20.0, None, 0.0)


def test_where_results_go() -> None:
    slot = fresh()
    slot.begin("o:ü", "id-ü", 1.0, 0.0, 0.0, True, "queue-ü")
    assert slot.running() == Running("o:ü", "id-ü", 1.0, None, 0.0, True, "queue-ü")
    slot.begin("o:1", "x" * (ROOM - 6), 1.0, 0.0, 0.0, True, "abc")
    assert slot.running() == Running("o:1", "x" * (ROOM - 6), 1.0, None, 0.0, True, "abc")
    slot.begin("o:1", "x" * (ROOM - 6), 1.0, 0.0, 0.0, True, "abcd")
    assert slot.running() == Running("o:1", "x" * (ROOM - 6), 1.0, None, 0.0, True), "no part of a name"


def test_a_short_text_after_a_long_one() -> None:
    slot = fresh()
    slot.begin("o:1", "x" * 300, 1.0, 0.0, 0.0)
    slot.end()
    slot.begin("o:2", "y", 2.0, 0.0, 0.0)
    running = slot.running()
    assert running is not None
    assert (running.token, running.id) == ("o:2", "y")


@pytest.mark.parametrize("task_id", ["ü" * 20, "任务-1", "🥬🥬", "a\nb", "\x00", "\udcff"])
def test_any_text_is_an_id(task_id: str) -> None:
    slot = fresh()
    slot.begin("o:1", task_id, 1.0, 0.0, 0.0)
    running = slot.running()
    assert running is not None
    assert running.token == "o:1"
    assert running.id == task_id.replace("\udcff", "?")


@settings(max_examples=30)
@given(st.text(st.characters(), max_size=600), st.integers(1, 10**12))
def test_an_id_of_any_length_leaves_the_token_whole(task_id: str, number: int) -> None:
    slot, token = fresh(), f"celeriac:0123456789ab:{number}"
    slot.begin(token, task_id, 1.0, 2.0, 1.0)
    running = slot.running()
    assert running is not None
    assert running.token == token
    whole = task_id.encode("utf-8", "replace").decode()
    shown = running.id.removesuffix("�") if len(token) + len(whole.encode()) > ROOM else running.id
    assert whole.startswith(shown)
    assert (running.deadline, running.limit) == (2.0, 1.0)


@pytest.mark.parametrize("length", [ROOM - 4, ROOM - 3, ROOM - 2, ROOM, 70_000])
def test_a_text_that_is_cut_in_the_middle_of_a_character(length: int) -> None:
    slot = fresh()
    slot.begin("o:1", "é" * length, 1.0, 0.0, 0.0)
    running = slot.running()
    assert running is not None
    assert running.token == "o:1"


def test_neighbours_are_not_written_over() -> None:
    slots = Slots(3)
    for index in (0, 2):
        slots[index].begin(f"o:{index}", "id", 1.0, 0.0, 0.0)
        slots[index].live(index + 1, READY)
    slots[1].begin("o:1", "x" * 10_000, 1.0, 0.0, 0.0)
    slots[1].live(2**32 - 1, READY)
    slots[1].pulse(1e9, 2**40)
    slots[1].reset()
    for index in (0, 2):
        running = slots[index].running()
        assert running is not None
        assert (running.token, slots[index].pid, slots[index].state) == (f"o:{index}", index + 1, READY)
    slots.close()


class Torn:
    """Memory whose writer dies after so many writes, and in the last one after half of its bytes."""

    def __init__(self, memory: bytearray, writes: int) -> None:
        self.memory = memory
        self.left = writes

    def __setitem__(self, where: slice, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        if self.left == 0:
            where, data = slice(where.start, where.start + len(data) // 2), data[: len(data) // 2]
        self.memory[where] = data


def test_killed_while_the_texts_are_written_it_ran_nothing() -> None:
    """The lengths make the texts valid, and come last."""
    memory = bytearray(SLOT_SIZE)
    torn = Slot(Torn(memory, 1), 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):  # the lengths are packed into the buffer itself, which is no buffer here
        torn.begin("o:1", "id-1", 1.0, 2.0, 1.0)
    assert memory != bytearray(SLOT_SIZE)
    assert Slot(memory, 0).running() is None  # type: ignore[arg-type]


def test_killed_while_the_next_texts_are_written_it_ran_nothing() -> None:
    memory = bytearray(SLOT_SIZE)
    whole = Slot(memory, 0)  # type: ignore[arg-type]
    whole.begin("o:1", "id-1", 1.0, 2.0, 1.0)
    whole.end()
    with pytest.raises(TypeError):
        Slot(Torn(memory, 1), 0).begin("o:2", "id-2", 1.0, 2.0, 1.0)  # type: ignore[arg-type]
    assert whole.running() is None


@pytest.mark.parametrize("written", range(28))
def test_killed_in_the_middle_of_the_lengths(written: int) -> None:
    """Whatever part of the header is there: no error, and no token that was never begun."""
    memory = bytearray(SLOT_SIZE)
    slot = Slot(memory, 0)  # type: ignore[arg-type]
    slot.begin("o:1", "id-1", 1.0, 2.0, 1.0)
    header = slice(64 + written, 64 + 28)
    memory[header] = bytes(28 - written)
    running = slot.running()
    assert running is None or running.token in ("", "o:1")


def test_life() -> None:
    slot = fresh()
    assert (slot.pid, slot.state, slot.beat, slot.tasks) == (0, FREE, 0.0, 0)
    slot.live(7, STARTING)
    slot.pulse(12.5, 3)
    slot.live(7, CONNECTING)
    assert (slot.pid, slot.state, slot.beat, slot.tasks) == (7, CONNECTING, 12.5, 3)
    slot.begin("o:1", "id", 1.0, 0.0, 0.0)
    assert (slot.pid, slot.tasks) == (7, 3)
    slot.reset()
    assert (slot.pid, slot.state, slot.beat, slot.tasks, slot.running()) == (0, FREE, 0.0, 0, None)


def test_there_are_no_others() -> None:
    slots = Slots(1)
    with pytest.raises(IndexError):
        slots[1]
    with pytest.raises(IndexError):
        slots[-1]
