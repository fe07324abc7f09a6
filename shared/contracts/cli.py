"""The server side of the `xe` protocol: the API process owns the socket, the CLI service the conversation."""

from __future__ import annotations

from shared.bus.contract import Empty, Method, Record, Replay


class CliCommand(Record, frozen=True):
    """`body`: the request's body, as the thin client sent it. `trusted`: it came over the host's Unix socket.

    `conversation`: made by the API process; `input` names it.
    """

    conversation: str
    body: str
    trusted: bool
    address: str
    traceparent: str = ""


class Frames(Record, frozen=True):
    """Whole frames of the thin CLI protocol, base64, to be written to the client as they are."""

    data: str


class CliInput(Record, frozen=True):
    """Bytes the client sent after its banner, base64, in order; `eof`: it has gone."""

    conversation: str
    data: str = ""
    eof: bool = False


RUN = Method(
    "cli",
    "run",
    CliCommand,
    Frames,
    "Runs one command; streams what to tell the client until Exit.",
    timeout=86400,
    replay=Replay.ONCE,
    streams=True,
)
INPUT = Method("cli", "input", CliInput, Empty, "What the client answered.")
