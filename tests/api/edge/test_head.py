import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.edge.head import Head, HeadError, Unfinished, parse


def test_names_are_folded_and_values_stripped() -> None:
    head = parse(b"POST /a HTTP/1.1\r\nHOST:h\r\nContent-LENGTH:  5 \r\nX: a: b")
    assert head.headers == {"host": "h", "content-length": "5", "x": "a: b"}
    assert (head.method, head.path, head.length, head.http10, head.keep_alive) == ("POST", "/a", 5, False, True)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/x?a=b%20c+d&a=2&e=f,g&h", "/x", {"a": "b c d", "e": "f,g", "h": ""}),
        ("http://h:80/x?a=b", "/x", {"a": "b"}),
        ("http://h", "/", {}),
        ("/%6asonrpc", "/jsonrpc", {}),
        ("*", "*", {}),
    ],
)
def test_targets_are_taken_apart(target: str, path: str, query: dict[str, str]) -> None:
    head = parse(f"GET {target} HTTP/1.1".encode())
    assert (head.path, head.query()) == (path, query)


@pytest.mark.parametrize(
    ("text", "cookies"),
    [
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=x%3By;a=2", {"a": "x;y"}),
        ("", {}),
        ("a", {"a": ""}),
    ],
)
def test_cookies_come_in_two_spellings(text: str, cookies: dict[str, str]) -> None:
    assert parse(f"GET / HTTP/1.1\r\nCookie: {text}".encode()).cookies() == cookies


def test_repeated_arguments_are_kept() -> None:
    assert parse(b"GET /?arg=1&arg=2 HTTP/1.1").query_pairs() == [("arg", "1"), ("arg", "2")]


def test_a_short_request_line_has_not_ended() -> None:
    with pytest.raises(Unfinished):
        parse(b"GET /")


@given(st.binary(max_size=120))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    try:
        assert isinstance(parse(data), Head)
    except (HeadError, Unfinished):
        return


@given(st.text("GETPOS /:%?&=;htp1.0\r\nxÄ", max_size=60))
def test_no_text_breaks_what_reads_the_head_later(text: str) -> None:
    try:
        head = parse(text.encode())
    except (HeadError, Unfinished):
        return
    head.query()
    head.cookies()
