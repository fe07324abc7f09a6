"""What the service and the process that serves NBD clients tell each other: JSON objects, one a line, in the process's
standard input and output.

Nothing heavy is imported here. Names of exports pass here whole, with the sessions in them: they are never logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Serve:
    """Listen at these addresses and no others; connections that there are go on. `port`: 0 for any that is free.

    `certificate`: a file, with the chain; `key`: of one that does not begin with its own. Both "" to serve without TLS.
    """

    addresses: list[str]
    port: int
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """`socket`: where qemu-nbd serves what that connection has asked for."""

    connection: int
    socket: str


Why = Literal["unknown", "denied"]


@dataclass(frozen=True, slots=True)
class Refused:
    """`text`: for the client."""

    connection: int
    why: Why
    text: str


@dataclass(frozen=True, slots=True)
class Listening:
    """The answer to `Serve`: the ports by address; `failed`: why it cannot listen at others."""

    ports: dict[str, int]
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connection asks for an export. `peer`: where the client is, for logs."""

    connection: int
    export: str
    peer: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A connection that had asked for an export is closed."""

    connection: int


Order = Serve | Opened | Refused
Told = Listening | Wanted | Gone


def _names(kinds: Iterable[type[Any]]) -> dict[str, type[Any]]:
    return {each.__name__: each for each in kinds}


_KINDS = _names((Serve, Opened, Refused, Listening, Wanted, Gone))


def pack(word: Order | Told) -> bytes:
    return json.dumps({"word": type(word).__name__, **asdict(word)}).encode() + b"\n"


def unpack(line: bytes) -> Any:
    """One of the records above. Raises ValueError."""
    found: dict[str, Any] = json.loads(line)
    try:
        return _KINDS[found.pop("word")](**found)
    except (KeyError, TypeError) as error:
        raise ValueError("a line that is no word between the service and its NBD process") from error
