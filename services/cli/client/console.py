"""A guest's console in this terminal: raw bytes both ways until Ctrl-]."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.cli.client.connection import ConnectFailed, LostConnection, Stream
from services.cli.client.conversation import HEARTBEAT
from services.cli.client.transfer import Refused, Side

ESCAPE = b"\x1d"
_RETRY = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each further attempt to connect."""


def connect(side: Side, url: str) -> bool:
    """Runs the session. Returns success; says why on standard error when the server refuses."""
    for delay in (*_RETRY, None):
        try:
            with side.request("CONNECT", url, "content-length: 0\r\n") as (stream, _):
                try:
                    with _raw_terminal():
                        _relay(side, stream)
                except ConnectionError as error:
                    side.trace.note(f"the console's connection ended: {error}")
                _write(b"\r\n")
                return True
        except Refused as error:
            if error.status == "404":
                text = "The console is not available: the VM does not run on that host, or has no such console."
            else:
                text = f"Server said: {error}"
            sys.stderr.write(f"{text}\n")
            return False
        except (ConnectFailed, LostConnection, OSError) as error:
            side.trace.note(f"CONNECT failed: {error!r}")
        if delay is not None:
            time.sleep(delay)
    return False


def until_escape(data: bytes) -> tuple[bytes, bool]:
    """What goes to the guest, and whether the user leaves: neither the escape nor what follows it is sent."""
    sent, escape, _ = data.partition(ESCAPE)
    return sent, bool(escape)


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C too. Without a terminal (a pipe) there is nothing to set."""
    if not os.isatty(0):
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _relay(side: Side, stream: Stream) -> None:
    """Ends when the user leaves or the guest's side closes. The end of a piped input only ends the input."""
    inputs: list[int | socket.socket] = [0, stream.socket]
    pending = getattr(stream.socket, "pending", None)
    while True:
        ready, _, _ = select.select(inputs, [], [], HEARTBEAT)
        side.heartbeat()
        if 0 in ready:
            data = os.read(0, 4096)
            if not data:
                inputs.remove(0)
            sent, leave = until_escape(data)
            if sent:
                stream.send(sent)
            if leave:
                return
        if stream.socket in ready:
            data = stream.receive()
            while data and pending is not None and pending():
                data += stream.receive()
            if not data:
                return
            _write(data)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
