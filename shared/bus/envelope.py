"""What travels in a message's body: JSON (orjson), one object, `v` and `kind` first; checked against these records.

Times are seconds left, never a clock reading: hosts' clocks need not agree.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
import orjson

from shared.bus.interface import BusError, DeadlineExceeded, ResultUnknown, StaleTerm
from shared.errors import ApiError

VERSION = 1
MAX_BYTES = 96 * 1024 * 1024
"""Of one body. RabbitMQ closes the channel of a message above 128 MiB, and with it every call on it."""


class EnvelopeError(Exception):
    """The body is not a message of this version."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """`v`: the version that came with it; `encode` gives its own."""

    v: int = 0


# ---- to the queue of a service


class Call(_Message, frozen=True, tag="call"):
    """`timeout`: seconds left. `resent`: the server said that it does not have the call, which was sent before.

    `server`: the instance that the caller took to be serving the queue when it first sent the call; "" unknown.
    `age`: seconds since then.
    `credit`: of a stream, how many records may be sent before more is given.
    `call`, `origin`: as in `shared.bus.context`.
    """

    id: str
    method: str
    body: Any
    timeout: float
    task: str = ""
    session: str = ""
    user: str = ""
    call: str = ""
    origin: str = ""
    term: int = 0
    trace: str = ""
    resent: bool = False
    server: str = ""
    age: float = 0.0
    credit: int = 0
    observed: str = ""


class Probe(_Message, frozen=True, tag="probe"):
    """What became of that call? The answer goes to this message's reply address, and so will the call's own."""

    id: str
    credit: int = 0


class Cancel(_Message, frozen=True, tag="cancel"):
    """Nobody waits for that call any more."""

    id: str


class Credit(_Message, frozen=True, tag="credit"):
    """That stream may send up to so many records in all."""

    id: str
    credit: int


# ---- to the caller. `server`: the instance (process) that answers


class Result(_Message, frozen=True, tag="result"):
    server: str
    body: Any


class Failure(_Message, frozen=True, tag="failure"):
    """`refusal`: the bus, not the handler, says no: "" | stale-term | result-unknown | deadline. `seq`: as in `End`."""

    server: str
    code: str
    params: list[str]
    refusal: str = ""
    seq: int = 0


class Running(_Message, frozen=True, tag="running"):
    """`seq`: records of a stream sent so far."""

    server: str
    seq: int = 0


class Absent(_Message, frozen=True, tag="absent"):
    """The server does not know the call: it never came, or a predecessor had it."""

    server: str


class Item(_Message, frozen=True, tag="item"):
    """One record of a stream; `seq` counts from 1."""

    server: str
    seq: int
    body: Any


class End(_Message, frozen=True, tag="end"):
    """The stream is complete with `seq` records."""

    server: str
    seq: int


# ---- on the events exchange


class Event(_Message, frozen=True, tag="event"):
    body: Any
    task: str = ""
    session: str = ""
    user: str = ""
    term: int = 0
    trace: str = ""


Decoded = TypeVar("Decoded", bound=_Message)

ToServer = Call | Probe | Cancel | Credit
ToCaller = Result | Failure | Running | Absent | Item | End


def encode(message: _Message) -> bytes:
    """Raises `EnvelopeError` for what JSON or the bus cannot carry (half a surrogate pair, 2**64, 100 MB)."""
    try:
        fields = msgspec.to_builtins(message, str_keys=True)
        fields["v"] = VERSION
        body = orjson.dumps(fields)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise EnvelopeError(f"cannot be sent: {error}") from error
    if len(body) > MAX_BYTES:
        raise EnvelopeError(f"cannot be sent: {len(body)} bytes, more than {MAX_BYTES}")
    return body


_to_server: Final[msgspec.json.Decoder[ToServer]] = msgspec.json.Decoder(ToServer)
_to_caller: Final[msgspec.json.Decoder[ToCaller]] = msgspec.json.Decoder(ToCaller)
_event: Final = msgspec.json.Decoder(Event)


def decode_to_server(body: bytes) -> ToServer:
    return _decode(body, _to_server)


def decode_to_caller(body: bytes) -> ToCaller:
    return _decode(body, _to_caller)


def decode_event(body: bytes) -> Event:
    return _decode(body, _event)


def _decode(body: bytes, decoder: msgspec.json.Decoder[Decoded]) -> Decoded:
    try:
        message = decoder.decode(body)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        message = None
    if message is not None and message.v == VERSION:
        return message
    return _decode_slowly(body, decoder.type)


def _decode_slowly(body: bytes, kind: type[Decoded]) -> Decoded:
    """What is no message in the quick decoder's eyes may be one all the same; if not, this says why."""
    try:
        fields = orjson.loads(body)
        if type(fields) is dict and fields.get("v") != VERSION:
            raise EnvelopeError(f"version {fields.get('v')!r} of the envelope is not known")
        return msgspec.convert(fields, kind)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(str(error)) from error


# ---- errors on the wire


def failure(server: str, error: ApiError, seq: int = 0) -> Failure:
    """What a handler raised. A bus error that its own calls met is its answer now, so its kind is not kept."""
    return Failure(server=server, code=error.code, params=error.params, seq=seq)


def refusal(server: str, kind: str, error: BusError, seq: int = 0) -> Failure:
    return Failure(server=server, code=error.code, params=error.params, refusal=kind, seq=seq)


STALE_TERM, RESULT_UNKNOWN, DEADLINE = "stale-term", "result-unknown", "deadline"
_REFUSALS: dict[str, type[BusError]] = {
    STALE_TERM: StaleTerm,
    RESULT_UNKNOWN: ResultUnknown,
    DEADLINE: DeadlineExceeded,
}


def exception(answer: Failure) -> ApiError:
    """The error as the caller sees it: the handler's, or the bus error that the server refused with."""
    kind = _REFUSALS.get(answer.refusal, ApiError)
    error = kind.__new__(kind)
    ApiError.__init__(error, answer.code, *answer.params)
    return error
