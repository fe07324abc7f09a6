"""A server for the real client: accepts connections on a socket and plays a script on each, in order."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.cli.protocol import BANNER, Chunk, Message, decode, encode

Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.request = b""

    def read_request(self) -> str:
        """An HTTP request with its body; returns the body."""
        while b"\r\n\r\n" not in self.request:
            self.request += self.read(1)
        head = self.request.lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]) if b"content-length" in head else 0
        body = self.read(length) if b"post" in head else b""
        self.request += body
        return body.decode()

    def greet(self) -> str:
        """The opening of a conversation; returns the body."""
        body = self.read_request()
        self.socket.sendall(BANNER)
        assert self.read(len(BANNER)) == BANNER
        return body

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.socket.sendall(encode(message))

    def hear(self) -> Message:
        (size,) = struct.unpack("<i", self.read(4))
        return decode(self.read(size))

    def hear_blob(self) -> bytes:
        chunk = self.hear()
        assert isinstance(chunk, Chunk)
        return self.read(chunk.size)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def read_all(self) -> bytes:
        data = b""
        while part := self.socket.recv(65536):
            data += part
        return data


def conversation(*messages: Message) -> Script:
    """Greets, says the messages and ends."""

    def play(peer: Peer) -> None:
        peer.greet()
        peer.say(*messages)

    return play


class ScriptedServer:
    """Plays `scripts`, one for each connection. What fails in one is raised by `close`."""

    def __init__(
        self, scripts: Sequence[Script], *, unix: Path | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self.peers: list[Peer] = []
        self._failure: BaseException | None = None
        if unix is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(unix))
        else:
            self._listener = socket.socket()
            self._listener.bind(("127.0.0.2", 0))
            self.port = int(self._listener.getsockname()[1])
        self._listener.listen()
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            for script in self._scripts:
                sock, _ = self._listener.accept()
                sock.settimeout(20)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                peer = Peer(sock)
                self.peers.append(peer)
                try:
                    script(peer)
                finally:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            continue
                    sock.close()
        except BaseException as error:
            self._failure = error

    def close(self) -> None:
        self._thread.join(30)
        self._listener.close()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def xe(
    *words: str,
    home: Path,
    stdin: str | int | None = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the real client, in `home`."""
    socket_path = {"XE_SOCKET": str(home / "no-socket")}
    env = {"HOME": str(home), "PATH": os.environ["PATH"], **socket_path, **(environment or {})}
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    return subprocess.run(
        [sys.executable, "-c", "import sys; from services.cli.client import main; sys.exit(main())", *words],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=home,
        env={**env, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=False,
        **given,
    )
