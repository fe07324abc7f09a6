"""The head of an HTTP request: request line and headers, by the rules that XenAPI clients grew up with.

A parser of its own, small and strict, because those rules are not the usual ones: CONNECT comes with a path, any
version that is not 1.0 counts as 1.1, a request line of two words is one that has not ended yet.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

END = b"\r\n\r\n"
_BLANK_LINES = re.compile(rb"(?:\r\n)*+")
_BREAKS = re.compile(rb"[\r\n\0]")


class HeadError(Exception):
    """The head cannot be read: answered with HTTP 500 and closed."""


class Unfinished(Exception):
    """The request line has too few words. The original waits for more until its time is over, so we do too."""


class Head:
    """`path`: percent-decoded, without query. `length`: of the body, None without Content-Length. `headers`: names in
    lower case, the first of duplicates."""

    __slots__ = ("chunked", "headers", "http10", "keep_alive", "length", "method", "path", "query_text")

    def __init__(self, method: str, target: str, http10: bool, headers: dict[str, str]) -> None:
        self.method = method
        self.http10 = http10
        self.headers = headers
        if not target.startswith("/") and "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, self.query_text = target.partition("?")
        self.path = unquote(path) if "%" in path else path
        length = headers.get("content-length")
        if length is None:
            self.length = None
        elif length.isascii() and length.isdigit() and len(length) < 20:
            self.length = int(length)
        else:
            raise HeadError(f"Content-Length is {length!r}")
        self.chunked = "transfer-encoding" in headers
        self.keep_alive = not http10 and headers.get("connection", "").lower() != "close"

    @property
    def bodiless(self) -> bool:
        """Whether nothing follows the head. Without a length, a body that is put or posted ends with the connection."""
        if self.length is None:
            return self.method not in ("PUT", "POST") and not self.chunked
        return not self.length

    @property
    def waits_for_leave(self) -> bool:
        """Whether the client sends its body only when it is told to go on, or has waited a second (RFC 9110 10.1.1)."""
        return not self.http10 and not self.bodiless and self.headers.get("expect", "").lower() == "100-continue"

    def query(self) -> dict[str, str]:
        """The arguments; the first of duplicates."""
        return first_of(self.query_pairs())

    def query_pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query_text, keep_blank_values=True, errors="replace")

    def cookies(self) -> dict[str, str]:
        """Separated by `;`, or by `&` where there is none; both halves percent-decoded."""
        text = self.headers.get("cookie", "")
        parts = (part.strip().partition("=") for part in text.split(";" if ";" in text else "&"))
        return first_of([(unquote(name), unquote(value)) for name, _, value in parts if name])


def blank_lines(data: bytes | bytearray) -> int:
    """Bytes of the empty lines at the beginning: some clients end bodies with one."""
    found = _BLANK_LINES.match(data)
    return found.end() if found is not None else 0


def first_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def parse(data: bytes) -> Head:
    """The head in `data` (without the empty line that ends it). Raises `HeadError` or `Unfinished`."""
    first, *lines = data.decode("utf-8", "replace").split("\r\n")
    if _BREAKS.search(data.replace(b"\r\n", b"")):
        raise HeadError("a line end or NUL within a line")  # others would see another request
    words = first.split(" ")
    if len(words) < 3:
        raise Unfinished
    if len(words) > 3:
        raise HeadError("the request line has more than three words")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[0] in " \t" or name[-1] in " \t":
            raise HeadError("a header line without a name")
        name = name.lower()
        if name not in headers:
            headers[name] = value.strip()
        elif name == "content-length" and headers[name] != value.strip():
            raise HeadError("two different lengths")
    return Head(words[0], words[1], words[2] == "HTTP/1.0", headers)
