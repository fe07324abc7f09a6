"""The wire form: what is encoded comes back, and no body breaks the receiver."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus import envelope
from shared.bus.interface import BusError, DeadlineExceeded, HostOffline, ResultUnknown, StaleTerm
from shared.errors import ApiError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(json_values, st.floats(0.001, 1e6), st.integers(0, 2**31))
def test_a_call_comes_back_as_it_was(body: object, timeout: float, term: int) -> None:
    try:
        data = envelope.encode(envelope.Call(id="i", method="m", body=body, timeout=timeout, term=term))
    except envelope.EnvelopeError:
        assert "\\ud" in ascii(body)  # half a surrogate pair in a key
        return
    call = envelope.decode_to_server(data)
    assert isinstance(call, envelope.Call)
    assert (call.body, call.timeout, call.term) == (body, timeout, term)


@given(
    st.binary()
    | json_values.map(orjson.dumps)
    | st.dictionaries(st.text(), json_values).map(lambda fields: orjson.dumps({"v": 1, "kind": "call", **fields}))
)
def test_any_body_is_a_message_or_an_envelope_error(body: bytes) -> None:
    for decode in (envelope.decode_to_server, envelope.decode_to_caller, envelope.decode_event):
        with contextlib.suppress(envelope.EnvelopeError):
            decode(body)


def test_another_version_is_refused_by_name() -> None:
    body = orjson.dumps({"v": 2, "kind": "probe", "id": "x"})
    with pytest.raises(envelope.EnvelopeError, match="version 2"):
        envelope.decode_to_server(body)


def test_a_body_that_the_broker_would_choke_on_is_refused() -> None:
    with pytest.raises(envelope.EnvelopeError, match="bytes, more than"):
        envelope.encode(envelope.Result(server="s", body="x" * (envelope.MAX_BYTES + 1)))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (envelope.STALE_TERM, StaleTerm(3, 4)),
        (envelope.RESULT_UNKNOWN, ResultUnknown("vm.start")),
        (envelope.DEADLINE, DeadlineExceeded("vm.start")),
    ],
)
def test_a_refusal_keeps_its_class(kind: str, error: BusError) -> None:
    answer = envelope.decode_to_caller(envelope.encode(envelope.refusal("s", kind, error)))
    assert isinstance(answer, envelope.Failure)
    raised = envelope.exception(answer)
    assert type(raised) is type(error)
    assert raised.description == error.description
    assert str(raised) == str(error)


def test_what_a_handler_raises_is_a_plain_api_error() -> None:
    raised = envelope.exception(envelope.failure("s", HostOffline("h")))
    assert type(raised) is ApiError
    assert raised.description == ["HOST_OFFLINE", "h"]
