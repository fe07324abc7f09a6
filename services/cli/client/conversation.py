"""The client's half of the conversation: one server command after the other, until Exit."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.cli.client.connection import LostConnection, Stream
from services.cli.client.options import Options
from services.cli.client.permission import NamedFiles
from services.cli.client.trace import Trace
from services.cli.protocol import (
    OK,
    Chunk,
    Command,
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
    Wait,
    decode,
    encode,
    frame_size,
)

if TYPE_CHECKING:
    from services.cli.client.transfer import Side

HEARTBEAT = 300.0
"""Seconds of a transfer after which the server gets a sign of life."""


class Unexpected(Exception):
    """The server sent an answer where a command was due."""


class OutputClosed(Exception):
    """Whoever read our output has gone."""


class Heartbeat:
    """Sends Wait on the main stream when it is time; call it after each block of data. `listen`: to what the server
    says meanwhile.
    """

    def __init__(self, stream: Stream, listen: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self._listen = listen
        self._last = time.monotonic()

    def __call__(self) -> None:
        self._listen()
        now = time.monotonic()
        if now - self._last >= HEARTBEAT:
            self._last = now
            self._stream.send(encode(Wait()))


class Conversation:
    def __init__(self, stream: Stream, options: Options, trace: Trace) -> None:
        self._stream = stream
        self._options = options
        self._trace = trace
        self._files = NamedFiles(options.forwarded)

    def run(self) -> int:
        """Returns the status that the server chose."""
        while True:
            message = self._receive()
            if isinstance(message, Exit):
                sys.stdout.flush()
                return message.code & 0xFF
            self._obey(message)

    def _receive(self) -> Command:
        payload = self._stream.exactly(frame_size(self._stream.exactly(4)))
        message = decode(payload)
        self._trace.note(f"< {message!r}")
        if not isinstance(message, Command):
            raise Unexpected(f"Unexpected message from server: {message!r}")
        return message

    def _send(self, message: Message) -> None:
        self._trace.note(f"> {message!r}")
        self._stream.send(encode(message))

    def _obey(self, message: Command) -> None:
        match message:
            case Print(text):
                _write(1, text + "\n")
            case PrintStderr(text):
                _write(2, text)
            case Error(code, params):
                _write(2, f"Error code: {code}\nError parameters: {', '.join(params)}\n")
            case Prompt():
                self._prompt()
            case Load(filename):
                self._load(filename)
            case HttpGet(filename, url):
                from services.cli.client.transfer import get

                self._answer(get(self._side(), self._files, filename, url))
            case HttpPut(filename, url):
                from services.cli.client.transfer import put

                self._files.check(filename)
                self._answer(put(self._side(), filename, url))
            case HttpConnect(url):
                from services.cli.client.console import connect

                self._answer(connect(self._side(), url))
            case Debug() | Exit():
                return  # the trace has shown it; Exit ends `run`

    def _side(self) -> Side:
        from services.cli.client.transfer import Side

        return Side(self._options, Heartbeat(self._stream, self._listen), self._trace, self._stream.unix, self._answer)

    def _listen(self) -> None:
        """During a transfer the server may only print: how far it is."""
        while self._stream.waiting():
            message = self._receive()
            if not isinstance(message, Print | PrintStderr | Debug):
                raise Unexpected(f"Unexpected message from server during a transfer: {message!r}")
            self._obey(message)

    def _answer(self, success: bool) -> None:
        self._send(OK() if success else Failed())

    def _prompt(self) -> None:
        sys.stdout.flush()
        line = sys.stdin.buffer.readline()
        if not line:
            raise LostConnection
        self._blob(line.removesuffix(b"\n"))

    def _load(self, filename: str) -> None:
        self._files.check(filename)
        try:
            with open(filename, "rb") as file:
                data = file.read()
        except OSError as error:
            self._trace.note(str(error))
            self._send(Failed())
            return
        if len(data) > 0x7FFFFFFF:
            self._send(Failed())  # no Chunk can say so much
            return
        self._send(OK())
        self._blob(data)

    def _blob(self, data: bytes) -> None:
        self._send(Chunk(len(data)))
        self._stream.send(data)
        self._send(End())


def _write(descriptor: int, text: str) -> None:
    """As bytes and at once: the server's text has no character set, and its order on the two outputs counts."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError as error:
        raise OutputClosed from error
