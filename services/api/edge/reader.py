"""Finds requests in the bytes of one client: what a proxy says first, heads, and bodies of calls. No I/O.

A head is parsed again only when it differs from the one before: most of a client's calls have the same.
"""

from __future__ import annotations

from collections.abc import Callable

from services.api.edge import head as http
from services.api.edge.dispatcher import Caller, HttpRefusal
from services.api.edge.endpoint import Endpoint, Kind, Limits
from services.api.edge.handlers import METHODS, Handler, Router, Runs
from services.api.edge.peer import Peer

OTHER_CONFIG = "x-http-other-config-"


class Request:
    """What a head asks for, and who asks. `raw`: the head as it came, without the empty line that ends it."""

    __slots__ = ("caller", "head", "raw", "row")

    def __init__(self, raw: bytes, head: http.Head, row: Handler, caller: Caller) -> None:
        self.raw = raw
        self.head = head
        self.row = row
        self.caller = caller


class Reader:
    """`buffer`: what has come and was not taken yet. `request`: there once `take_head` was true; the same object for
    equal heads. `http10`: whether the last head that could be read, acceptable or not, was of version 1.0.
    """

    __slots__ = ("_endpoint", "_head_limit", "_limits", "_peer", "_raw", "_router", "buffer", "http10", "request")

    def __init__(self, peer: Peer, endpoint: Endpoint, limits: Limits, router: Callable[[], Router]) -> None:
        self._peer = peer
        self._endpoint = endpoint
        self._limits = limits
        self._router = router
        self._head_limit = {
            Kind.PLAIN: limits.header_plain,
            Kind.TLS: limits.header_tls,
            Kind.UNIX: limits.header_unix,
        }[endpoint.kind]
        self._raw = b""
        self.buffer = bytearray()
        self.http10 = False
        self.request: Request

    def take_head(self) -> bool:
        """Whether a head was complete. Raises `HttpRefusal` for one that is not acceptable."""
        buffer = self.buffer
        if self._peer.undecided and not self._take_preamble():
            return False
        if buffer[:2] == b"\r\n":
            del buffer[: http.blank_lines(buffer)]
        end = buffer.find(http.END)
        if (len(buffer) if end < 0 else end + len(http.END)) > self._head_limit:
            raise HttpRefusal(431)
        if end < 0:
            return False
        raw = bytes(buffer[:end])
        if raw != self._raw:
            try:
                self.request = self._read(raw)
            except http.Unfinished:
                return False
            except http.HeadError as error:
                raise _unreadable(error) from None
            self._raw = raw
        del buffer[: end + len(http.END)]
        return True

    def has_body(self) -> bool:
        """Whether as much of the body is there as the request's row wants to have read."""
        request = self.request
        return not request.row.body or len(self.buffer) >= (request.head.length or 0)

    def take_body(self) -> bytes:
        """That body."""
        request = self.request
        if not request.row.body:
            return b""
        length = request.head.length or 0
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        return body

    @property
    def all_read(self) -> bool:
        """Whether the client has nothing more to send of its request, whose head and body were taken."""
        request = self.request
        return not self.buffer and bool(request.row.body or request.head.bodiless)

    def _take_preamble(self) -> bool:
        """Whether what follows is a request: nothing, or all that a proxy says first, has been taken away."""
        try:
            taken = self._peer.take_preamble(self.buffer)
        except http.HeadError as error:
            raise _unreadable(error) from None
        if self._peer.secure:
            self._head_limit = self._limits.header_tls
        return taken

    def _read(self, raw: bytes) -> Request:
        self._raw = b""
        head = http.parse(raw)
        self.http10 = head.http10
        if head.method not in METHODS:
            raise HttpRefusal(501, f"The method {head.method} is not supported.")
        row = self._router().find(head.method, head.path)
        if row is None:
            raise HttpRefusal(403)
        if row.body:
            if head.chunked:
                raise HttpRefusal(500, "Chunked bodies are not supported here.")
            if head.length is None:
                raise HttpRefusal(500, "Content-Length is missing.")
            if head.length > row.body:
                raise HttpRefusal(500, f"The body is larger than {row.body} bytes.")
        elif row.runs is Runs.PREFLIGHT:
            head.keep_alive = head.keep_alive and not head.length and not head.chunked
        return Request(raw, head, row, self._describe(head))

    def _describe(self, head: http.Head) -> Caller:
        get = head.headers.get
        extra = {n[len(OTHER_CONFIG) :]: v for n, v in head.headers.items() if n.startswith(OTHER_CONFIG)}
        return Caller(
            host=self._endpoint.host,
            address=self._peer.address,
            trusted=self._endpoint.kind is Kind.UNIX,
            secure=self._peer.secure,
            certificate=self._peer.certificate,
            user_agent=get("user-agent", ""),
            originator=get("originator", ""),
            traceparent=get("traceparent", ""),
            baggage=get("baggage", ""),
            task=get("task-id", ""),
            subtask_of=get("subtask-of", ""),
            thumbprint=get("x-xenapi-request-host-certificate-thumbprint", ""),
            host_header=get("host", ""),
            other_config=extra,
        )


def _unreadable(error: http.HeadError) -> HttpRefusal:
    return HttpRefusal(500, f"The HTTP headers could not be parsed: {error}.")
