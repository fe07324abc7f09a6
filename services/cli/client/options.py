"""Which words of the command line are the client's own, and which go to the server.

Sources, weakest first: built-in values, `~/.xe`, `$XE_EXTRA_ARGS`, `$TRACEPARENT`, the command line. An own option is
taken out wherever it stands, as a switch (`-s host`) or as `key=value` (`server=host`); all else is forwarded in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

DEFAULT_SERVER = "127.0.0.1"

_SWITCHES = {
    "-s": "server",
    "-h": "server",
    "-p": "port",
    "-u": "username",
    "-pw": "password",
    "-pwf": "passwordfile",
    "--traceparent": "traceparent",
    "--cacert": "cacert",
}
"""Switches that take the next word as their value."""
_FLAGS = {"--nossl": "nossl", "--debug": "debug", "--debug-on-fail": "debugonfail"}
_KEYS = {*_SWITCHES.values(), *_FLAGS.values()}

USAGE = """\
Usage: xe <command> [-s <server>] [-p <port>] [-u <user>] [-pw <password> | -pwf <password file>] [<parameters>]
Options may stand anywhere, also as server=, port=, username=, password= and passwordfile=.
  --nossl              plain HTTP
  --cacert <file>      verify the server's certificate against these
  --traceparent <id>   W3C trace context of the call
  --debug              show the protocol on standard error; --debug-on-fail: only if the command fails
  -version, -help
A full list of commands: xe help --all. One command: xe help <command>
"""


class UsageError(Exception):
    """The command line cannot be used: `text`, then the usage; the exit status is 0."""


class OptionError(Exception):
    """An option's value cannot be used; the text is complete, the exit status is 1."""


class Options(NamedTuple):
    """`port`: None means the usual one. `forwarded`: the words for the server, in order."""

    server: str = DEFAULT_SERVER
    port: int | None = None
    username: str = "root"
    password: str = "null"
    nossl: bool = False
    debug: bool = False
    debug_on_fail: bool = False
    traceparent: str = ""
    cacert: str = ""
    forwarded: tuple[str, ...] = ()


def split(words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The own options among the words (the last of each wins) and the words to forward."""
    own: dict[str, str] = {}
    forwarded: list[str] = []
    rest = iter(words)
    for word in rest:
        key, equals, value = word.partition("=")
        if word in _FLAGS:
            own[_FLAGS[word]] = "true"
        elif word in _SWITCHES:
            following = next(rest, None)
            if following is None:
                forwarded.append(word)
            else:
                own[_SWITCHES[word]] = following
        elif equals and key in _KEYS:
            own[key] = value
        else:
            forwarded.append(word)
    return own, forwarded


def extra_words(text: str) -> list[str]:
    r"""The words of `$XE_EXTRA_ARGS`: separated by commas, `\,` is a comma, other backslashes vanish."""
    pieces = text.replace("\\,", "\0").split(",")
    return [word for piece in pieces if (word := piece.replace("\0", ",").replace("\\", ""))]


def rc_words(text: str) -> list[str]:
    """The words of `~/.xe`: lines `key=value`. Raises `OptionError` for the first line without `=`."""
    lines = [line.strip() for line in text.splitlines()]
    for line in lines:
        if line and "=" not in line:
            raise OptionError(f"~/.xe: {line!r} is not of the form key=value; the file is ignored")
    return [line for line in lines if line]


def combine(argv: Iterable[str], extra: str, rc: Iterable[str], traceparent: str) -> tuple[dict[str, str], list[str]]:
    """Own options by precedence, and the forwarded words: command line, then extra arguments, then the file's."""
    rc_own, rc_rest = split(rc)
    extra_own, extra_rest = split(extra_words(extra))
    line_own, line_rest = split(argv)
    environment = {"traceparent": traceparent} if traceparent else {}
    return {**rc_own, **extra_own, **environment, **line_own}, [*line_rest, *extra_rest, *rc_rest]


def options(own: Mapping[str, str], forwarded: Iterable[str], credentials: tuple[str, str] | None) -> Options:
    """Checks the values. `credentials`: what the password file holds; it wins over user name and password.

    Raises `UsageError` for a bad port, `OptionError` for a bad `nossl`.
    """
    port = None
    if "port" in own:
        port = int(own["port"]) if own["port"].isascii() and own["port"].isdigit() else -1
        if not 0 <= port <= 65535:
            raise UsageError(f"'{own['port']}' is not a port: a number from 0 to 65535 is expected")
    nossl = own.get("nossl", "false")
    if nossl not in ("true", "false"):
        raise OptionError(f"nossl is true or false, not '{nossl}'")
    username, password = credentials or (own.get("username", "root"), own.get("password", "null"))
    return Options(
        server=own.get("server", DEFAULT_SERVER),
        port=port,
        username=username,
        password=password,
        nossl=nossl == "true",
        debug=own.get("debug") == "true",
        debug_on_fail=own.get("debugonfail") == "true",
        traceparent=own.get("traceparent", ""),
        cacert=own.get("cacert", ""),
        forwarded=tuple(forwarded),
    )


def credentials(text: str, path: str) -> tuple[str, str]:
    """User and password from a password file's first two lines. Raises `OptionError` if it has fewer."""
    lines = text.splitlines()
    if len(lines) < 2:
        raise OptionError(f"Password file {path} must have the user name on its first line, the password on its second")
    return lines[0], lines[1]
