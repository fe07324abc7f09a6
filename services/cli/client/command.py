"""One run of `xe`: options, connection, handshake, conversation, exit status."""

from __future__ import annotations

import os
import sys
from typing import IO

from services.cli.client.connection import ConnectFailed, LostConnection, Stream, main_stream
from services.cli.client.conversation import Conversation, OutputClosed, Unexpected
from services.cli.client.options import USAGE, OptionError, Options, UsageError, combine, credentials, options, rc_words
from services.cli.client.permission import NotPermitted
from services.cli.client.trace import Trace
from services.cli.client.transfer import TransferError
from services.cli.protocol import BANNER, MAGIC, MAJOR, MINOR, ProtocolError


class HandshakeFailed(Exception):
    """What answered is not a usable server. `usage`: show it too."""

    def __init__(self, text: str, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage


def run(argv: list[str]) -> int:
    """Returns the exit status; all text for the user has been written."""
    if not argv or "-help" in argv or "--help" in argv:
        return _say(USAGE, 0)
    try:
        chosen = _options(argv)
    except UsageError as error:
        return _say(f"{error}\n{USAGE}", 0)
    except OptionError as error:
        return _say(f"{error}\n", 1)
    trace = Trace(chosen.debug, chosen.debug_on_fail)
    status = 1
    try:
        status = _converse(chosen, trace)
    except KeyboardInterrupt:
        trace.note("interrupted")
    except OutputClosed:
        trace.note("nobody reads the output any more")
    except HandshakeFailed as error:
        _say(f"{error}\n{USAGE if error.usage else ''}", 1)
    except LostConnection:
        _say("Lost connection to the server.\n", 1)
    except (ConnectFailed, NotPermitted, TransferError, Unexpected, ProtocolError) as error:
        _say(f"{error}\n", 1)
    except OSError as error:
        _say(f"Error: {error.strerror or error}\n", 1)
    trace.finish(status)
    return status


def _options(argv: list[str]) -> Options:
    own, forwarded = combine(argv, os.environ.get("XE_EXTRA_ARGS", ""), _rc_file(), os.environ.get("TRACEPARENT", ""))
    pair = None
    if "passwordfile" in own:
        path = own["passwordfile"]
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                pair = credentials(file.read(), path)
        except OSError as error:
            raise OptionError(f"Password file {path} cannot be read: {error.strerror}") from error
    return options(own, forwarded, pair)


def _rc_file() -> list[str]:
    path = os.path.join(os.environ.get("HOME", ""), ".xe")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return rc_words(file.read())
    except FileNotFoundError:
        return []
    except (OSError, OptionError) as error:
        _say(f"{error}\n", 1)
        return []


def _converse(chosen: Options, trace: Trace) -> int:
    stream = main_stream(chosen)
    try:
        trace.note(f"connected{' to the Unix socket' if stream.unix else ''}")
        stream.send(request(chosen, os.environ.get("BAGGAGE", "")))
        _handshake(stream, trace)
        return Conversation(stream, chosen, trace).run()
    except ConnectionError as error:
        trace.note(str(error))
        raise LostConnection from None
    finally:
        stream.close()


def request(chosen: Options, baggage: str) -> bytes:
    """The opening HTTP request: the words one a line, then the credentials."""
    words = [*chosen.forwarded, f"username={chosen.username}", f"password={chosen.password}"]
    body = "\n".join(words).encode("utf-8", "surrogateescape")
    headers = [f"User-agent: xe-cli/Unix/{MAJOR}.{MINOR}", "originator: cli"]
    if chosen.traceparent:
        headers.append(f"traceparent: {chosen.traceparent}")
    if baggage:
        headers.append(f"baggage: {baggage}")
    head = "\r\n".join(["POST /cli HTTP/1.0", *headers, f"content-length: {len(body)}", "", ""])
    return head.encode("utf-8", "surrogateescape") + body


def _handshake(stream: Stream, trace: Trace) -> None:
    """Reads the server's banner and sends ours. A server that is none is told from the first bytes that differ."""
    banner = b""
    while len(banner) < len(BANNER):
        try:
            part = stream.receive(len(BANNER) - len(banner))
        except ConnectionError as error:
            trace.note(str(error))
            part = b""
        if not part:
            break
        banner += part
        if banner[:4].upper() == b"HTTP":
            raise HandshakeFailed("Server internal error")
        if banner[: len(MAGIC)] != MAGIC[: len(banner)]:
            raise HandshakeFailed("Failed to contact a xe server: what answered there is something else", usage=True)
    if not banner:
        raise HandshakeFailed("Unable to contact server. Please check server and port settings.")
    if len(banner) < len(BANNER):
        raise LostConnection
    major = int.from_bytes(banner[-8:-4], "little", signed=True)
    trace.note(f"server protocol {major}.{int.from_bytes(banner[-4:], 'little', signed=True)}")
    if major != MAJOR:
        raise HandshakeFailed(f"Protocol version mismatch: the server has {major}, this client {MAJOR}", usage=True)
    stream.send(BANNER)


def _say(text: str, status: int, to: IO[str] | None = None) -> int:
    file = to or sys.stderr
    file.write(text)
    file.flush()
    return status
