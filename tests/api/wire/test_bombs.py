"""Small bodies that are much work: reading one takes time in proportion to its length, whatever it holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from services.api.wire import jsonrpc, xmlrpc
from services.api.wire.raw import Malformed

SIZE = 300 * 1024
"""Bytes of the largest call."""
ENOUGH = 1.0
"""Seconds of the processor: many times what any of these takes, a fraction of what a quadratic one would."""


def _filled(start: bytes, piece: bytes, end: bytes = b"") -> bytes:
    return start + piece * ((SIZE - len(start) - len(end)) // len(piece)) + end


_JSON = [
    _filled(b"/*", b'"\\'),
    _filled(b"/*", b'"\\') + b"\\",
    _filled(b"/*", b'"'),
    _filled(b"", b"/* "),
    _filled(b"", b"/*/"),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":[', b"/**/", b"1]}"),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":["', b'\\"/*', b'"]}'),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":["', b"\xff", b'"]}'),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":["', b"\\ud800", b'"]}'),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":[{', b'"a":1,', b'"a":1}]}'),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":[', b"9", b"]}"),
    _filled(b'{"jsonrpc":"2.0","id":1,"method":"m","params":[1e', b"9", b"]}"),
    _filled(b'{"jsonrpc":"2.0","id":', b"9", b',"method":"m","params":[]}'),
    _filled(b"", b"["),
    _filled(b"/**/", b"["),
    _filled(b"", b'{"a":'),
    _filled(b'"', b" "),
]

_PARAMETER = b"<methodCall><methodName>m</methodName><params><param><value>"
_PARAMETER_END = b"</value></param></params></methodCall>"
_XML = [
    _filled(b"<?xml", b" encoding"),
    _filled(b"<?xml", b" encoding="),
    _filled(b"<?xml encoding", b" "),
    _filled(b"", b" "),
    _filled(b"", b"</methodCall "),
    _filled(b"</methodCall", b" "),
    _filled(b"", b"<a>"),
    _filled(b"", b"<value><array><data>"),
    _filled(b"<a>", b"&#x41;", b"</a>"),
    _filled(b"<a ", b'b="" ', b"/>"),
    b"<a " + b" ".join(b'b%d=""' % number for number in range(20000)) + b"/>",
    b"<a " + b" ".join(b'xmlns:b%d="u"' % number for number in range(12000)) + b"/>",
    _filled(b"<!DOCTYPE a [", b'<!ATTLIST a b CDATA "c">', b"]><a/>"),
    _filled(b"<methodCall><methodName>m</methodName><params>", b"<param/>", b"</params></methodCall>"),
    _filled(_PARAMETER + b"<int>", b"9", b"</int>" + _PARAMETER_END),
    _filled(_PARAMETER + b"<int>0x", b"f", b"</int>" + _PARAMETER_END),
    _filled(_PARAMETER + b"<double>", b"9", b"</double>" + _PARAMETER_END),
]


@pytest.mark.parametrize(
    ("parse", "body"),
    [*((jsonrpc.parse, body) for body in _JSON), *((xmlrpc.parse, body) for body in _XML)],
    ids=lambda value: value[:16].decode("latin-1") + value[60:76].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_no_body_takes_long_to_read(parse: Callable[[bytes], Any], body: bytes) -> None:
    begun = time.process_time()
    with contextlib.suppress(Malformed, jsonrpc.InvalidText):  # how soon it is known to be no call is what counts
        parse(body)
    assert time.process_time() - begun < ENOUGH


@pytest.mark.parametrize("rest", [b"/*", b"/* *", b'"', b'"\\', b"/**/1"])
def test_what_does_not_end_is_no_comment(rest: bytes) -> None:
    with pytest.raises(Malformed):
        jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"m","params":[]}' + rest)
