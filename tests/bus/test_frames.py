"""Messages that are written and read past pika are what pika would have made of them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pika.callback
import pika.channel
import pika.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame
from pika.spec import Basic, BasicProperties, Channel

from shared.bus import pika_channel, pika_frames

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CHANNEL, OTHER = 3, 4
TAG = "ctag1"
MAX_BODY = 60
"""Of one frame; longer ones come in several."""


class Connection:
    """What pika's is to the reader. `heard`: what consumers were given, and frames that came to pika."""

    def __init__(self) -> None:
        self.bytes_received = self.frames_received = 0
        self.heard: list[Any] = []
        self._channels = {
            number: SimpleNamespace(_cancelled={"gone"}, _consumers={TAG: self._consume}) for number in (CHANNEL, OTHER)
        }

    def channel(self, number: int) -> SimpleNamespace:
        return self._channels[number]

    def _consume(self, _: Any, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self.heard.append((vars(method), vars(properties), body))

    def _on_data_available(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self.heard.append(data)


def frames(tag: str, key: str, body: bytes, properties: BasicProperties, channel: int = CHANNEL) -> list[bytes]:
    method = Basic.Deliver(consumer_tag=tag, delivery_tag=7, redelivered=True, exchange="e", routing_key=key)
    pieces = [body[begin : begin + MAX_BODY] for begin in range(0, len(body), MAX_BODY)]
    made: list[Any] = [frame.Method(channel, method), frame.Header(channel, len(body), properties)]
    return [item.marshal() for item in (*made, *(frame.Body(channel, piece) for piece in pieces))]


def taken(stream: bytes, cuts: list[int]) -> Connection:
    connection, incoming = Connection(), pika_frames.Incoming()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, end in itertools.pairwise(places):
        incoming.take(stream[begin:end], connection)
    assert connection.bytes_received == len(stream)
    return connection


properties = st.builds(
    BasicProperties,
    content_type=st.none() | TEXT,
    delivery_mode=st.sampled_from((None, 1, 2)),
    correlation_id=st.none() | TEXT,
    reply_to=st.none() | TEXT,
    expiration=st.none() | TEXT,
    type=st.none() | TEXT,
)
messages = st.lists(st.tuples(TEXT, st.binary(max_size=MAX_BODY), properties), max_size=5)
cuts = st.lists(st.integers(0, 2000), max_size=8)


@given(messages, cuts)
def test_a_delivery_is_the_same_wherever_the_stream_is_cut(sent: list[Any], cuts: list[int]) -> None:
    stream = b"".join(b"".join(frames(TAG, key, body, known)) for key, body, known in sent)
    method = {"consumer_tag": TAG, "delivery_tag": 7, "redelivered": True, "exchange": "e"}
    wanted = [({**method, "routing_key": key}, vars(known), body) for key, body, known in sent]
    assert taken(stream, cuts).heard == wanted


@given(cuts)
def test_what_is_not_known_is_pikas_frame_by_frame_and_in_its_place(cuts: list[int]) -> None:
    plain, headers = BasicProperties(correlation_id="1"), BasicProperties(headers={"CC": ["db.VM.mod"]})
    pikas = [
        frame.Method(CHANNEL, Channel.Close(404, "gone", 0, 0)).marshal(),
        frame.Heartbeat().marshal(),
        *frames(TAG, "with headers", b"body", headers),
        *frames(TAG, "in several frames", b"x" * (MAX_BODY * 2), plain),
        *frames("gone", "cancelled", b"body", plain),
        *frames("nobody", "no consumer", b"", plain),
        *frames(TAG, "no channel", b"body", plain, channel=9),
    ]
    ours = b"".join(frames(TAG, "ours", b"body", plain))
    heard = taken(ours + b"".join(pikas) + ours, cuts).heard
    assert heard[1:-1] == pikas
    assert [item[2] for item in (heard[0], heard[-1])] == [b"body", b"body"]


def test_a_stream_that_is_cut_at_any_byte_is_the_same() -> None:
    known = BasicProperties(content_type="t", correlation_id="1")
    stream = b"".join(
        [
            *frames(TAG, "ours", b"body", known),
            frame.Heartbeat().marshal(),
            *frames(TAG, "in several frames", b"x" * (MAX_BODY + 1), known),
            *frames(TAG, "empty", b"", known),
        ]
    )
    whole = taken(stream, []).heard
    assert taken(stream, list(range(len(stream)))).heard == whole
    for at in range(len(stream)):
        assert taken(stream, [at]).heard == whole


@given(cuts)
def test_a_delivery_with_frames_of_others_between_its_own_is_pikas(cuts: list[int]) -> None:
    known = BasicProperties(correlation_id="1")
    method, header, body = frames(TAG, "interrupted", b"body", known)
    beat = frame.Heartbeat().marshal()
    other = b"".join(frames(TAG, "other", b"of another channel", known, channel=OTHER))
    assert taken(method + other + header + beat + body, cuts).heard[::2] == [method, header, body]
    connection = taken(method + beat + header + other + body, cuts)
    assert connection.heard[:3] + connection.heard[4:] == [method, beat, header, body]
    assert connection.heard[3][2] == b"of another channel"


def test_a_consumer_that_is_cancelled_by_the_one_before_gets_nothing() -> None:
    connection = Connection()
    known = connection.channel(CHANNEL)
    known._consumers["first"] = lambda *_: known._cancelled.add(TAG)
    second = frames(TAG, "second", b"body", BasicProperties())
    first = frames("first", "first", b"", BasicProperties())
    pika_frames.Incoming().take(b"".join((*first, *second)), connection)
    assert connection.heard == second, "pika gives it back"


def test_what_a_consumer_raises_is_raised_and_nothing_that_follows_is_taken() -> None:
    connection, incoming = Connection(), pika_frames.Incoming()

    def broken(*_: object) -> None:
        raise LookupError

    connection.channel(CHANNEL)._consumers["broken"] = broken
    ours = b"".join(frames(TAG, "ours", b"body", BasicProperties()))
    with pytest.raises(LookupError):
        incoming.take(ours + b"".join(frames("broken", "", b"", BasicProperties())) + ours, connection)
    assert len(connection.heard) == 1


def test_once_a_consumer_has_ended_the_connection_nothing_is_taken() -> None:
    connection, incoming = Connection(), pika_frames.Incoming()
    connection.channel(CHANNEL)._consumers["last"] = lambda *_: setattr(incoming, "over", True)
    ours = b"".join(frames(TAG, "ours", b"body", BasicProperties()))
    incoming.take(b"".join(frames("last", "", b"", BasicProperties())) + ours, connection)
    assert connection.heard == []


def test_what_is_no_frame_is_left_to_pika() -> None:
    assert taken(b"AMQP\0\0\x09\1", []).heard == [b"AMQP\0\0\x09\1"]


@given(TEXT, TEXT, TEXT, TEXT, st.binary(max_size=100), st.booleans())
def test_a_request_and_a_reply_are_written_as_pika_does(
    key: str, id: str, to: str, kind: str, body: bytes, mandatory: bool
) -> None:
    request = BasicProperties(correlation_id=id, reply_to=to, expiration="30000", type=kind)
    for known, raw in (
        (request, pika_frames.request_properties(id, to, "30000", kind)),
        (BasicProperties(correlation_id=id), pika_frames.reply_properties(id)),
    ):
        publish = Basic.Publish(exchange="rpc", routing_key=key, mandatory=mandatory)
        made: list[Any] = [frame.Method(CHANNEL, publish), frame.Header(CHANNEL, len(body), known)]
        wanted = b"".join(item.marshal() for item in (*made, *([frame.Body(CHANNEL, body)] if body else [])))
        assert pika_frames.published(CHANNEL, "rpc", key, raw, body, mandatory) == wanted


class Sending:
    """What pika's connection is to a channel that writes."""

    _body_max_length = MAX_BODY
    _send_method = pika.connection.Connection._send_method
    _send_message = pika.connection.Connection._send_message
    _output_marshaled_frames = pika.connection.Connection._output_marshaled_frames

    def __init__(self) -> None:
        self.callbacks = pika.callback.CallbackManager()
        self.bytes_sent = self.frames_sent = 0
        self.sent = b""

    def _adapter_emit_data(self, data: bytes) -> None:
        self.sent += data


@pytest.mark.parametrize("length", [0, 1, MAX_BODY - 1, MAX_BODY, MAX_BODY + 1, MAX_BODY * 5])
async def test_a_message_of_any_length_is_written_as_pika_does(length: int) -> None:
    ours, theirs, body = Sending(), Sending(), bytes(length)
    channels = [pika.channel.Channel(each, CHANNEL, lambda _: None) for each in (ours, theirs)]
    for each in channels:
        each._set_state(each.OPEN)
    request = pika_frames.request_properties("id", "to", "30000", "call")
    pika_channel.Channel(channels[0]).publish("rpc", "key", body, request, mandatory=True)
    known = BasicProperties(correlation_id="id", reply_to="to", expiration="30000", type="call")
    channels[1].basic_publish("rpc", "key", body, known, mandatory=True)
    assert ours.sent == theirs.sent
    assert ours.bytes_sent == theirs.bytes_sent
