"""Replies as bytes: the head of a successful call, and the pages that go with errors."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from services.api.edge.dispatcher import HttpRefusal
from shared.errors import ApiError

REASONS = {
    200: "OK",
    301: "Moved Permanently",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorised",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Error",
    501: "Method not implemented",
    503: "Service Unavailable",
}

_TITLES = {
    401: "You are not authorised to access this page.",
    403: "Access to this page is forbidden.",
    404: "The page does not exist.",
    408: "The request took too long to arrive.",
    431: "The headers of the request are too long.",
    500: "An error occurred while the request was carried out.",
    501: "This server cannot do that.",
    503: "The service is not available now.",
}

_STATUS = {
    "SESSION_INVALID": 401,
    "SESSION_AUTHENTICATION_FAILED": 401,
    "SESSION_AUTHORIZATION_FAILED": 401,
    "RBAC_PERMISSION_DENIED": 403,
}

_CORS = b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: "
_NO_CACHE = b"cache-control: no-cache, no-store\r\n"
_OK = {http10: b"HTTP/1.%d 200 OK\r\ncontent-length: " % (0 if http10 else 1) for http10 in (True, False)}
_CONNECTION = {True: b"\r\nconnection: keep-alive\r\n", False: b"\r\nconnection: close\r\n"}


def call_head(length: int, content_type: str, *, http10: bool, keep_alive: bool, thumbprint: str = "") -> bytes:
    """The head of the reply to a call, API failures included."""
    extra = f"x-xenapi-response-host-certificate-thumbprint: {thumbprint}\r\n".encode() if thumbprint else b""
    return b"%b%d%b%bcontent-type: %b\r\n%bX-Requested-With\r\n%b\r\n" % (
        _OK[http10],
        length,
        _CONNECTION[keep_alive],
        _NO_CACHE,
        content_type.encode(),
        _CORS,
        extra,
    )


def preflight(requested: str, *, http10: bool, keep_alive: bool) -> bytes:
    """The reply to OPTIONS. `requested`: what Access-Control-Request-Headers asks for."""
    allowed = f"{_one_line(requested)}, X-Requested-With" if requested else "X-Requested-With"
    return b"%b0%b%b%b%b\r\nAccess-Control-Allow-Methods: PUT\r\n\r\n" % (
        _OK[http10],
        _CONNECTION[keep_alive],
        _NO_CACHE,
        _CORS,
        allowed.encode(),
    )


def as_refusal(error: Exception) -> HttpRefusal:
    """What went wrong, in HTTP's terms."""
    if isinstance(error, HttpRefusal):
        return error
    if isinstance(error, ApiError):
        status = _STATUS.get(error.code, 500)
        return HttpRefusal(status, "" if status == 401 else api_error(error.description))
    return HttpRefusal(500, f"{type(error).__name__}: {error}")


def of_refusal(found: HttpRefusal, *, http10: bool, realm: str = "") -> bytes:
    """The whole reply. `realm`: of a 401 that names none itself."""
    if found.location:
        return redirect(found.status, found.location)
    if found.bare:
        return refusal(found.status, found.text, http10=found.http10)
    realm = (found.realm or realm) if found.status == 401 else ""
    return error(found.status, found.text, http10=http10, realm=realm)


def error(status: int, text: str = "", *, http10: bool = False, realm: str = "") -> bytes:
    """A whole error reply, after which the connection closes. `realm`: the handler that wants a login (401)."""
    title = _TITLES.get(status, "")
    body = f"<html><body><h1>HTTP {status} {REASONS[status]}</h1>{title}"
    if text:
        body += f"<h1> Additional information </h1>{html.escape(text)}"
    payload = (body + "</body></html>").encode("utf-8", "replace")
    headers = [f"content-length: {len(payload)}", "content-type: text/html", *_closing()]
    if realm:
        headers.append(f'WWW-Authenticate: Basic realm="{realm}"')
    return _reply(status, headers, http10) + payload


def refusal(status: int, text: str = "", *, http10: bool = False) -> bytes:
    """A status without a page, mostly without any body: how handlers turn down missing or wrong arguments."""
    payload = text.encode("utf-8", "replace")
    length = [f"content-length: {len(payload)}"] if payload else []
    return _reply(status, [*length, *_closing()], http10) + payload


GO_ON: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Comes before the reply to who has asked for it."""


def redirect(status: int, url: str) -> bytes:
    """It is to be had elsewhere: 302 with another host, 301 by HTTPS."""
    return _reply(status, [*_closing(), f"Location: {_one_line(url)}"], False)


def head(status: int, headers: Sequence[tuple[str, str]], *, http10: bool = False) -> bytes:
    """The head of a handler's own reply."""
    return _reply(status, [f"{name}: {_one_line(value)}" for name, value in headers], http10)


def api_error(description: Sequence[str]) -> str:
    """An API error on a page: `CODE: [ p1; p2 ]`."""
    return f"{description[0]}: [ {'; '.join(description[1:])} ]"


def _closing() -> list[str]:
    return ["connection: close", "cache-control: no-cache, no-store"]


def _reply(status: int, headers: list[str], http10: bool) -> bytes:
    lines = [f"HTTP/1.{0 if http10 else 1} {status} {REASONS[status]}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _one_line(text: str) -> str:
    """A header's value that came from the client: no line ends, whatever it contains."""
    return "".join(c for c in text if c.isprintable())
