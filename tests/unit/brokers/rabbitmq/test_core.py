"""The core of the AMQP connection: fields, methods, frames, confirms, what is held. No sockets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from celeriac.brokers.rabbitmq import delays
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.confirms import Confirms
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.fields import (
    Properties,
    decode_header,
    decode_table,
    encode_header,
    encode_table,
    short,
)
from celeriac.brokers.rabbitmq.frames import HEARTBEAT, Event, Parser, ack, publish
from celeriac.brokers.rabbitmq.handshake import Handshake
from celeriac.brokers.rabbitmq.holding import Entry, Held
from celeriac.brokers.rabbitmq.layout import Layout, _told, declare_queue
from celeriac.brokers.rabbitmq.messages import changed, due_of, given_back_often, header_of, of_content
from celeriac.brokers.rabbitmq.returned import Returned
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.message import Delivery, Malformed, Marks
from celeriac.ports import AdapterOptions, BindingFacts, Declaration
from celeriac.testing.conformance.tools import message

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)


class TestFields:
    @given(st.dictionaries(st.text(max_size=60), VALUES, max_size=8))
    def test_a_table_comes_back(self, table: dict[str, Any]) -> None:
        data = encode_table(table)
        assert decode_table(data, 0) == (table, len(data))

    @given(st.binary(max_size=200))
    def test_reading_raises_nothing_but_value_error(self, data: bytes) -> None:
        for read in (lambda: decode_table(data, 0), lambda: decode_header(b"\0\x3c\0\0" + data)):
            try:
                read()
            except ValueError:
                pass

    @given(st.data())
    def test_a_damaged_header_is_a_value_error(self, data: st.DataObject) -> None:
        whole = encode_header(Properties(content_type="x", headers={"a": [1, {"b": "c"}]}, correlation_id="i"), 5)
        at = data.draw(st.integers(14, len(whole) - 1))
        try:
            decode_header(whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :])
            decode_header(whole[:at])
        except ValueError:
            pass

    def test_what_others_write_is_read(self) -> None:
        table = (
            b"\x01bB\xff\x01ss\xff\xfe\x01uu\xff\xfe\x01ii\xff\xff\xff\xff\x01TT"
            + b"\0" * 7
            + b"\x09\x01DD\x02\0\0\0\x96"
        )
        read, _ = decode_table(len(table).to_bytes(4, "big") + table, 0)
        assert read == {"b": 255, "s": -2, "u": 65534, "i": 2**32 - 1, "T": 9, "D": Decimal("1.50")}
        again = encode_table(read)
        assert decode_table(again, 0)[0] == read, "what is put off keeps them"

    @pytest.mark.parametrize("value", [object(), {1: 2}, [object()], 2**70, *map(Decimal, (2**31, "1e5", "nan"))])
    def test_what_amqp_cannot_hold_is_refused(self, value: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            encode_table({"x": value})

    def test_depth_is_bounded(self) -> None:
        deep: Any = 1
        for _ in range(100):
            deep = [deep]
        with pytest.raises(ValueError, match="deeper"):
            encode_table({"x": deep})

    def test_short_strings_have_255_bytes(self) -> None:
        assert len(short("ü" * 127)) == 255
        with pytest.raises(ValueError, match="255"):
            short("ü" * 128)

    def test_properties_come_back_without_an_expiration(self) -> None:
        properties = Properties(
            content_type="application/json",
            content_encoding="utf-8",
            headers={"a": 1},
            delivery_mode=1,
            priority=7,
            correlation_id="c",
            reply_to="r",
            message_id="m",
            timestamp=5,
            type="t",
            app_id="p",
        )
        assert decode_header(encode_header(properties, 3)) == properties


class TestFrames:
    @given(st.lists(st.binary(max_size=9000), max_size=4), st.integers(1, 3000))
    def test_any_cut_of_the_stream(self, bodies: list[bytes], step: int) -> None:
        deliver = m.method(1, m.BASIC_DELIVER, "tag", 7, True, "", "q")
        stream = HEARTBEAT
        for body in bodies:
            frames = publish(1, short(""), short("q"), encode_header(Properties(), len(body)), body, 4096)
            length = 8 + int.from_bytes(frames[3:7], "big")
            stream += deliver + frames[length:] + HEARTBEAT
        parser, events = Parser(), []
        for at in range(0, len(stream), step):
            events += parser.feed(stream[at : at + step])
        assert [event.body for event in events if event.number] == bodies
        assert all(
            m.arguments(event.number, event.payload) == ["tag", 7, True, "", "q"] for event in events if event.number
        )

    def test_no_frame_is_larger_than_agreed(self) -> None:
        frames = publish(1, short(""), short("q"), encode_header(Properties(), 10_000), b"x" * 10_000, 4096)
        sizes, at = [], 0
        while at < len(frames):
            size = 8 + int.from_bytes(frames[at + 3 : at + 7], "big")
            sizes.append(size)
            at += size
        assert max(sizes) == 4096

    @pytest.mark.parametrize(
        "data", [b"HTTP/1.1 400 Bad Request\r\n", b"\x01\0\0\xff\xff\xff\xff", b"\x01\0\0\0\0\0\x01xx" * 2]
    )
    def test_what_is_no_amqp_is_said(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"AMQP|frame"):
            Parser().feed(data + b"\0" * 20)

    def test_methods_come_back(self) -> None:
        values: list[Any] = [0, "q", False, True, False, True, False, {"x-max-priority": 5}]
        frame = m.method(3, m.QUEUE_DECLARE, *values)
        (event,) = Parser().feed(frame)
        assert (event.channel, event.number) == (3, m.QUEUE_DECLARE)
        assert m.arguments(event.number, event.payload) == values
        assert m.name_of(event.number) == "queue.declare"

    def test_an_unknown_method_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="unknown"):
            m.arguments(0x5A000A, b"\0\x5a\0\x0a")


def answer(number: int, *values: Any) -> Event:
    (event,) = Parser().feed(m.method(1, number, *values))
    return event


class TestConfirms:
    def test_one_by_one_together_and_refused(self) -> None:
        confirms = Confirms()
        first = confirms.expect(5)
        assert not confirms.hear(answer(m.BASIC_ACK, 2, False))
        assert not confirms.hear(answer(m.BASIC_ACK, 3, True))
        assert first.left == 2
        assert not confirms.hear(answer(m.BASIC_NACK, 5, False, False))
        assert confirms.hear(answer(m.BASIC_ACK, 4, False)) == [first]
        assert (first.left, first.refused) == (0, 1)
        second = confirms.expect(2)
        assert confirms.hear(answer(m.BASIC_ACK, 7, True)) == [second]
        assert (second.left, second.refused) == (0, 0)

    def test_a_slow_one_holds_up_nobody_else(self) -> None:
        confirms = Confirms()
        slow, quick, last = (confirms.expect(count) for count in (1, 2, 1))
        assert not confirms.hear(answer(m.BASIC_ACK, 3, False))
        assert confirms.hear(answer(m.BASIC_ACK, 2, False)) == [quick]
        assert confirms.hear(answer(m.BASIC_NACK, 4, True, False)) == [slow, last]
        assert (slow.refused, quick.refused, last.refused) == (1, 0, 1)

    @given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
    def test_in_any_order(self, counts: list[int], data: st.DataObject) -> None:
        confirms = Confirms()
        parcels = [confirms.expect(count) for count in counts]
        tags = iter(range(1, sum(counts) + 1))
        open_ = {parcel: {next(tags) for _ in range(count)} for parcel, count in zip(parcels, counts, strict=True)}
        for tag in data.draw(st.permutations(range(1, sum(counts) + 1))):
            if any(tag in each for each in open_.values()):
                several = data.draw(st.booleans())
                before = {parcel for parcel in parcels if open_[parcel]}
                for each in open_.values():
                    each -= set(range(1, tag + 1)) if several else {tag}
                done = confirms.hear(answer(m.BASIC_ACK, tag, several))
                assert done == [parcel for parcel in parcels if parcel in before and not open_[parcel]]
                assert [parcel.left for parcel in parcels] == [len(open_[parcel]) for parcel in parcels]
        assert not any(open_.values())


class TestHeld:
    def held(self, count: int) -> tuple[Held, list[Entry]]:
        held, entries = Held("me", 1), []
        for tag in range(1, count + 1):
            delivery = of_content(encode_header(Properties(), 0), b"", token="", queue="q", redelivered=False)
            entries.append(Entry(tag, "q", b"", b"", delivery, None))
            held.add(entries[-1])
        return held, entries

    @given(st.lists(st.sets(st.integers(0, 19)), max_size=8))
    def test_exactly_what_is_ended_is_acknowledged(self, batches: list[set[int]]) -> None:
        held, entries = self.held(20)
        open_ = set(range(1, 21))
        for batch in batches:
            frames = held.acks(1, [entries[index] for index in sorted(batch)])
            acknowledged: set[int] = set()
            for event in Parser().feed(frames):
                tag, several = m.arguments(event.number, event.payload)
                acknowledged |= {each for each in open_ if each <= tag} if several else {tag}
            assert acknowledged == {index + 1 for index in batch} & open_
            open_ -= acknowledged
            assert set(held.open) == open_

    def test_what_stands_in_front_is_one_frame(self) -> None:
        held, entries = self.held(10)
        assert held.acks(1, entries[:9]) == ack(1, 9, multiple=True)

    def test_tokens_are_never_used_again(self) -> None:
        held, (entry,) = self.held(1)
        assert len({held.token(entry) for _ in range(3)}) == 3


class TestMessages:
    def test_marks_and_due_times_come_back_and_are_taken_away(self) -> None:
        header = changed(header_of(message("a")), b"", marks=Marks(crashes=2), due=5.5)
        delivery = of_content(header, b"", token="t", queue="q", redelivered=False)
        assert (delivery.marks, due_of(delivery)) == (Marks(crashes=2), 5.5)
        again = of_content(changed(header, b""), b"", token="t", queue="q", redelivered=False)
        assert (again.marks, due_of(again)) == (Marks(crashes=2), 0.0)

    @pytest.mark.parametrize(("count", "suspect"), [(1, False), (2, False), (3, True), (4, True)])
    def test_redelivered_often_means_suspect(self, count: int, suspect: bool) -> None:
        headers = {"x-delivery-count": count, "task": "t", "id": "i"}
        header = encode_header(Properties(headers=headers), 0)
        delivery = of_content(header, b"", token="t", queue="q", redelivered=True)
        assert delivery.marks == Marks(suspect=suspect, expired_leases=count)
        assert not isinstance(delivery.message, Malformed)
        assert set(delivery.message.headers) == {"task", "id"}, "no signature covers what the server adds"

    def test_type_tags_of_json_are_resolved(self) -> None:
        sent = message("a", headers={"when": Decimal("1.5"), **{f"x{n}": n for n in range(20)}})
        delivery = of_content(header_of(sent), b"", token="", queue="q", redelivered=False)
        assert delivery.message.headers["when"] == Decimal("1.5")  # type: ignore[union-attr]

    @given(st.binary(max_size=300), st.binary(max_size=50))
    def test_no_bytes_raise(self, header: bytes, body: bytes) -> None:
        of_content(header, body, token="t", queue="q", redelivered=True)

    def test_what_strangers_write_harms_no_connection(self) -> None:
        payload = m.method(1, m.BASIC_DELIVER, "tag", 7, True, "ex", "ZZ")[7:-1].replace(b"ZZ", b"\xff\xfe")
        assert m.arguments(m.BASIC_DELIVER, payload) == ["tag", 7, True, "ex", "\\xff\\xfe"]
        headers = {"x-delivery-count": 5, "bad": "ZZ"}
        header = encode_header(Properties(headers=headers), 0)
        assert given_back_often(header)
        assert not given_back_often(header.replace(b"ZZ", b"\xff\xfe")), "it cannot be copied"

    def test_who_lost_it_behind_us(self) -> None:
        """What was given back from here comes back as it was, unless the server has counted once more."""
        one, returned = message("a"), Returned("server")

        def delivered(count: int) -> Delivery:
            properties = decode_header(header_of(one))
            headers = {**properties.headers, "x-delivery-count": count}
            header = encode_header(replace(properties, headers=headers), len(one.body))
            return of_content(header, one.body, token="", queue="q", redelivered=count > 0)

        returned.note(delivered(0))
        assert not returned.look(delivered(1)).redelivered, "it was us"
        returned.note(delivered(0))
        assert returned.look(delivered(2)).redelivered, "somebody has died with it meanwhile"


class TestHandshake:
    def start(self, mechanisms: bytes = b"PLAIN EXTERNAL") -> Event:
        return answer(m.CONNECTION_START, 0, 9, {}, mechanisms, b"en_US")

    def test_it_agrees_on_the_smaller(self) -> None:
        (address,) = parse("amqp://ada:pw@host/v?heartbeat=30", AdapterOptions())
        handshake = Handshake(address)
        assert handshake.begin().startswith(b"AMQP")
        (ok,) = Parser().feed(handshake.hear(self.start()))
        properties, method, secret, _ = m.arguments(ok.number, ok.payload)
        assert (method, secret) == ("PLAIN", b"\0ada\0pw")
        assert properties["capabilities"]["connection.blocked"]
        tuned, opened = Parser().feed(handshake.hear(answer(m.CONNECTION_TUNE, 2047, 8192, 60)))
        assert m.arguments(tuned.number, tuned.payload) == [2047, 8192, 30]
        assert m.arguments(opened.number, opened.payload)[0] == "v"
        handshake.hear(answer(m.CONNECTION_OPEN_OK, ""))
        assert handshake.done

    def test_a_method_that_is_not_offered(self) -> None:
        (address,) = parse("amqp://host/?login_method=external", AdapterOptions())
        with pytest.raises(Closed, match="EXTERNAL"):
            Handshake(address).hear(self.start(b"PLAIN"))

    def test_a_refusal_is_told(self) -> None:
        (address,) = parse("amqp://host", AdapterOptions())
        with pytest.raises(Closed, match="no access"):
            Handshake(address).hear(answer(m.CONNECTION_CLOSE, 403, "no access", 0, 0))


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "vhost"),
        [
            ("amqp://h", "/"),
            ("amqp://h/", "/"),
            ("amqp://h//", "/"),
            ("amqp://h/v", "v"),
            ("amqp://h//v", "/v"),
            ("amqp://h/%2Fv", "/v"),
        ],
    )
    def test_virtual_hosts_as_kombu(self, url: str, vhost: str) -> None:
        assert parse(url, AdapterOptions())[0].vhost == vhost

    def test_several_hosts(self) -> None:
        addresses = parse("amqp://a//;amqps://b:1//", AdapterOptions(alternates=["pyamqp://c"]))
        assert [(each.host, each.port, each.tls is not None) for each in addresses] == [
            ("a", 5672, False),
            ("b", 1, True),
            ("c", 5672, False),
        ]

    @pytest.mark.parametrize("url", ["amqp://h:x", "amqp://h/?login_method=GSSAPI", "amqp://h/?heartbeat=-1"])
    def test_what_is_wrong_is_named(self, url: str) -> None:
        with pytest.raises(ImproperlyConfigured):
            parse(url, AdapterOptions())

    def test_an_unknown_option_is_told(self) -> None:
        with pytest.warns(UserWarning, match="'hartbeat'"):
            parse("amqp://h/?hartbeat=3", AdapterOptions())


class TestLayout:
    def test_celerys_order(self) -> None:
        declared = Declaration(name="q", bindings=(BindingFacts(exchange="x", type="topic", routing_key="k.#"),))
        layout = Layout(AdapterOptions(declarations=lambda name: declared))
        asked = list(layout.declaring("q"))
        assert [m.name_of(ask[0]) for ask in asked] == ["exchange.declare", "queue.declare", "queue.bind"]
        assert asked[0][2:4] == ("x", "topic")
        assert asked[2][2:5] == ("q", "x", "k.#")

    def test_one_that_differs_is_used_as_it_is(self, caplog: pytest.LogCaptureFixture) -> None:
        _told.clear()
        asking = declare_queue("q", True, False, False, {})
        next(asking)
        text = (
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': "
            "received none but current is the value 'quorum'"
        )
        assert asking.throw(Closed(406, text))[3] is True, "it asks passively"
        assert "x-queue-type" in caplog.text


class TestDelays:
    def test_the_bits_are_the_seconds(self) -> None:
        assert delays.routing_key("tq", 20) == "0." * 23 + "1.0.1.0.0.tq.celeriac-delay"
        assert delays.routing_key("q", 10**12).startswith("1." * 28)

    def test_every_queue_has_a_key_of_its_own(self) -> None:
        queues = ["mail", "foo.mail", "#", "*", "a.#", "x" * 255]
        keys = [delays.routing_key(queue, 1) for queue in queues]
        assert len(set(keys)) == len(queues)
        assert all(len(key.encode()) <= 255 for key in keys)
        assert not any(word in {"#", "*"} for key in keys for word in key.split("."))
