"""Side connections: HTTP/1.0 requests beside the conversation, to download, upload, or reach a console."""

from __future__ import annotations

import os
import re
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from services.cli.client.connection import ConnectFailed, LostConnection, Stream, main_stream, remote_stream
from services.cli.client.conversation import HEARTBEAT, Heartbeat
from services.cli.client.options import Options
from services.cli.client.permission import NamedFiles
from services.cli.client.trace import Trace

BLOCK = 1 << 18
_REDIRECTS = 10
_URL = re.compile(r"https://(\[[^\]]*\]|[^:/?]*)(?::(\d+))?(.*)", re.DOTALL)


class TransferError(Exception):
    """A local file cannot be used: the conversation ends, after the server was told."""


class Refused(Exception):
    """The server's status line was not 200; `line` is what it said."""

    def __init__(self, status: str, line: str) -> None:
        super().__init__(line)
        self.status = status


class Reply(NamedTuple):
    status: str
    line: str
    headers: dict[str, str]


class Side:
    """What a side connection needs of the conversation. `answer`: sends OK or Failed to the server."""

    def __init__(
        self,
        options: Options,
        heartbeat: Heartbeat,
        trace: Trace,
        unix: bool,
        answer: Callable[[bool], None],
    ) -> None:
        self.heartbeat = heartbeat
        self.trace = trace
        self.answer = answer
        self._options = options
        self._unix = unix

    @contextmanager
    def request(self, method: str, url: str, header: str = "") -> Iterator[tuple[Stream, Reply]]:
        """The stream just behind the reply's headers, whose status is 200; redirections are followed.

        Raises `Refused`, `ConnectFailed`, `LostConnection`, `OSError`.
        """
        for _ in range(_REDIRECTS):
            stream, path = self._open(url)
            try:
                stream.send(f"{method} {path} HTTP/1.0\r\n{header}\r\n".encode("utf-8", "surrogateescape"))
                reply = self._reply(stream)
                if reply.status == "200":
                    yield stream, reply
                    return
            finally:
                stream.close()
            if reply.status != "302" or method == "CONNECT" or "location" not in reply.headers:
                raise Refused(reply.status, reply.line)
            url = reply.headers["location"]
        raise Refused("302", "too many redirections")

    def wait(self, stream: Stream) -> None:
        """Until the stream has something, with signs of life on the main one."""
        pending = getattr(stream.socket, "pending", None)
        while not (pending is not None and pending()):
            readable, _, _ = select.select([stream.socket], [], [], HEARTBEAT)
            self.heartbeat()
            if readable:
                return

    def _open(self, url: str) -> tuple[Stream, str]:
        """A relative URL is on the server of the conversation, reached the same way."""
        match = _URL.fullmatch(url)
        if match is None:
            return main_stream(self._options), url
        host, port, path = match.groups()
        self.trace.note(f"side connection to {host}")
        return remote_stream(self._options, host, int(port) if port else self._options.port), _request_path(path)

    def _reply(self, stream: Stream) -> Reply:
        self.wait(stream)
        line = stream.line().decode("latin-1").strip()
        if not line:
            raise LostConnection
        self.trace.note(f"side < {line}")
        headers: dict[str, str] = {}
        while (header := stream.line()) not in (b"\r\n", b"\n", b""):
            name, _, value = header.decode("utf-8", "surrogateescape").partition(":")
            headers[name.strip().lower()] = value.strip()
        words = line.split()
        return Reply(words[1] if len(words) > 1 else "", line, headers)


def _request_path(path: str) -> str:
    """Servers expect an absolute URL's path percent-decoded, but nothing that would break the request line."""
    from urllib.parse import unquote

    decoded = unquote(path, errors="surrogateescape")
    return path if re.search(r"[\x00-\x20\x7f]", decoded) else decoded or "/"


def get(side: Side, files: NamedFiles, filename: str, url: str) -> bool:
    """Downloads to a new file, or to standard output if `filename` is empty. Returns success.

    Raises `NotPermitted` once the server has agreed, `TransferError` if the file exists.
    """
    try:
        with side.request("GET", url) as (stream, reply):
            if filename:
                files.check(filename, directory=True)
            return _receive(side, stream, reply, filename)
    except (Refused, ConnectFailed, LostConnection, OSError) as error:
        side.trace.note(f"GET failed: {error!r}")
        return False


def _receive(side: Side, stream: Stream, reply: Reply, filename: str) -> bool:
    target = _create(side, filename) if filename else os.dup(1)
    size = 0
    complete = False
    try:
        while True:
            side.wait(stream)
            block = stream.receive(BLOCK)
            if not block:
                break
            size += len(block)
            while block:
                block = block[os.write(target, block) :]
        complete = reply.headers.get("content-length", str(size)) == str(size)
        return complete
    finally:
        os.close(target)
        if filename and not complete:
            os.unlink(filename)  # ours, and worth nothing: it would only stop the next attempt


def _create(side: Side, filename: str) -> int:
    try:
        return os.open(filename, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        side.answer(False)
        raise TransferError(f"Operation failed. Error: {filename}: {error.strerror}") from error


def put(side: Side, filename: str, url: str) -> bool:
    """Uploads a file, after the server's 200. Returns success. Raises `TransferError` if it cannot be opened."""
    try:
        source = os.open(filename, os.O_RDONLY)
    except OSError as error:
        side.answer(False)
        raise TransferError(f"Operation failed. Error: {filename}: {error.strerror}") from error
    try:
        facts = os.fstat(source)
        header = f"Content-length: {facts.st_size}\r\n" if stat.S_ISREG(facts.st_mode) else ""
        with side.request("PUT", url, header) as (stream, _):
            while block := os.read(source, BLOCK):
                stream.send(block)
                side.heartbeat()
        return True
    except (Refused, ConnectFailed, LostConnection, OSError) as error:
        side.trace.note(f"PUT failed: {error!r}")
        return False
    finally:
        os.close(source)
