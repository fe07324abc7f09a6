from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.protocol import (
    BANNER,
    OK,
    Chunk,
    Debug,
    End,
    Error,
    Exit,
    Failed,
    HttpConnect,
    HttpGet,
    HttpPut,
    Load,
    Message,
    Print,
    PrintStderr,
    Prompt,
    ProtocolError,
    Wait,
    decode,
    encode,
    frame_size,
)

text = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
number = st.integers(-(2**31), 2**31 - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Print, text),
    st.builds(PrintStderr, text),
    st.builds(Debug, text),
    st.builds(Load, text),
    st.just(Prompt()),
    st.builds(Exit, number),
    st.builds(Error, text, st.lists(text, max_size=4).map(tuple)),
    st.builds(HttpGet, text, text),
    st.builds(HttpPut, text, text),
    st.builds(HttpConnect, text),
    st.just(OK()),
    st.just(Failed()),
    st.just(Wait()),
    st.builds(Chunk, number),
    st.just(End()),
)


@given(messages, st.binary(max_size=8))
def test_what_was_encoded_is_decoded_whatever_follows_its_fields(message: Message, rest: bytes) -> None:
    frame = encode(message)
    assert frame_size(frame[:4]) == len(frame) - 4
    found = decode(frame[4:] + rest)
    assert (type(found), tuple(found)) == (type(message), tuple(message))


@given(st.binary(max_size=64))
def test_any_payload_is_a_message_or_a_protocol_error(payload: bytes) -> None:
    try:
        message = decode(payload)
    except ProtocolError:
        return
    assert decode(encode(message)[4:]) == message


@given(messages, st.data())
def test_a_frame_cut_short_is_a_protocol_error(message: Message, data: st.DataObject) -> None:
    payload = encode(message)[4:]
    with pytest.raises(ProtocolError):
        decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


EXAMPLES = {
    "11000000 09000000 00000000 05000000 75312c7532": Print("u1,u2"),
    "0c000000 09000000 04000000 00000000": Exit(0),
    "12000000 09000000 01000000 06000000 2f746d702f6b": Load("/tmp/k"),
    "08000000 0a000000 05000000": OK(),
    "0c000000 0b000000 07000000 04000000": Chunk(4),
    "08000000 0b000000 08000000": End(),
    "13000000 09000000 0c000000 01000000 6f 02000000 2f78": HttpGet("o", "/x"),
    "1e000000 09000000 0e000000 03000000 455f58 02000000 01000000 61 02000000 6263": Error("E_X", ("a", "bc")),
    "08000000 0a000000 12000000": Wait(),
}


@pytest.mark.parametrize(("bytes_", "message"), EXAMPLES.items(), ids=lambda value: type(value).__name__)
def test_the_worked_example_has_these_bytes(bytes_: str, message: Message) -> None:
    assert encode(message) == bytes.fromhex(bytes_)
    assert decode(bytes.fromhex(bytes_)[4:]) == message


def test_the_banner_is_the_magic_and_two_numbers() -> None:
    assert bytes.fromhex("58656e536f75726365207468696e20434c492070726f746f636f6c 00000000 02000000") == BANNER


@pytest.mark.parametrize("header", ["ffffffff", "00000000", "ffffff7f"])
def test_a_frame_of_absurd_size_is_refused_before_it_is_read(header: str) -> None:
    with pytest.raises(ProtocolError):
        frame_size(bytes.fromhex(header))


def test_an_unknown_tag_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="9/2"):
        decode(bytes.fromhex("09000000 02000000"))
