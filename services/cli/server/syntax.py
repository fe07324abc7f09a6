"""A command's words, as the server reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.cli.server.failures import UsageError
from services.cli.server.values import boolean
from shared.errors import internal_error

STANDARD = frozenset(
    {"server", "password", "port", "username", "minimal", "force", "multiple", "all", "message-priority", "trace"}
)
"""Parameters that any command may have; never filters, selectors or fields."""

_SWITCHES = {"-u": "username", "-pw": "password", "-s": "server", "-h": "server", "-p": "port"}


class Params:
    """The parameters in order, duplicates kept: a look-up takes the first, filters take all."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs = tuple(pairs)

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def find(self, name: str) -> str | None:
        return next((value for key, value in self.pairs if key == name), None)

    def get(self, name: str, default: str = "") -> str:
        value = self.find(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> str:
        """Raises `UsageError` if it is missing."""
        value = self.find(name)
        if value is None:
            raise UsageError(f"Required parameter not found: {name}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean argument."""
        return boolean(name, self[name]) if name in self else default

    def mapping(self, prefix: str) -> dict[str, str]:
        """`prefix:key=value` and `prefix-key=value`: whatever follows the prefix and one separator."""
        return {key[len(prefix) + 1 :]: value for key, value in self.pairs if _belongs(key, prefix)}

    def besides(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """What is neither standard nor one of `names`; of a map parameter the part before the colon counts."""
        known = {name.removesuffix(":") for name in names}
        return [(key, value) for key, value in self.pairs if key not in STANDARD and key.partition(":")[0] not in known]

    @property
    def minimal(self) -> bool:
        """Only `true` and `false` are understood. Raises INTERNAL_ERROR otherwise."""
        text = self.get("minimal", "false")
        if text not in ("true", "false"):
            raise internal_error(f"minimal is true or false, not {text!r}")
        return text == "true"


def _belongs(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and len(key) > len(prefix) + 1


class Invocation:
    """`session`: given on the first line, used instead of a login."""

    def __init__(self, name: str, params: Params, session: str) -> None:
        self.name = name
        self.params = params
        self.session = session


def parse(body: str) -> Invocation:
    """The request's body: words one a line, the command first. Raises `UsageError`."""
    lines = [line.removesuffix("\r") for line in body.split("\n")]
    session = ""
    if lines and lines[0].startswith("session_id="):
        session = lines.pop(0).removeprefix("session_id=")
    if not lines or "=" in lines[0]:
        raise UsageError("Syntax error: ")
    return Invocation(lines[0], Params(_pairs(iter(lines[1:]))), session)


def _pairs(words: Iterator[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        if word.startswith("--"):
            yield word[2:], "true"
        elif word.startswith("-"):
            following = next(words, None)
            if word not in _SWITCHES or following is None:
                raise UsageError("Syntax error: ")
            yield _SWITCHES[word], following
        else:
            key, _, value = word.partition("=")
            yield key, value
