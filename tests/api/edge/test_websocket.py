import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.edge import websocket
from services.api.edge.websocket import Frame, Opcode, ProtocolError, Reader


def masked(opcode: int, payload: bytes, key: bytes = b"\x01\x02\x03\x04", first: int = 0x80) -> bytes:
    """A client's frame, made without the module's own encoder."""
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65536:
        size = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return bytes([first | opcode]) + size + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def test_the_handshake_is_that_of_the_rfc() -> None:
    assert websocket.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=5),
    st.binary(min_size=4, max_size=4),
    st.data(),
)
def test_frames_are_found_in_whatever_pieces_they_come(
    frames: list[tuple[int, bytes]], key: bytes, data: st.DataObject
) -> None:
    stream = b"".join(masked(opcode, payload, key) for opcode, payload in frames)
    reader, found = Reader(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [Frame(Opcode(opcode), payload) for opcode, payload in frames]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 200_000])
def test_every_length_form_is_written_and_read(size: int) -> None:
    payload = bytes(size)
    assert websocket.frame(Opcode.BINARY, payload).endswith(payload)
    assert Reader().feed(masked(2, payload)) == [Frame(Opcode.BINARY, payload)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (websocket.frame(Opcode.BINARY, b"x"), 1002),
        (masked(3, b""), 1002),
        (masked(2, b"", first=0xC0), 1002),
        (masked(0, b"x"), 1002),
        (masked(2, b"x", first=0) + masked(2, b"y"), 1002),
        (masked(9, b"x", first=0), 1002),
        (masked(9, bytes(126)), 1002),
        (b"\x82\xff" + (2**40).to_bytes(8, "big"), 1009),
    ],
)
def test_broken_frames_are_refused(data: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as found:
        Reader().feed(data)
    assert found.value.code == code


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        Reader().feed(data)
