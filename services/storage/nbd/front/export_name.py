"""Names of exports: `/<uuid of the VDI>?session_id=<reference>`, as VDI.get_nbd_info gives them.

`&changed_since=<uuid of a VDI>` may follow: then block status tells what has changed since that one, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

SESSION = "session_id"
BASE = "changed_since"


@dataclass(frozen=True, slots=True)
class ExportName:
    """`session` is a credential: it is not shown, neither here nor in logs."""

    vdi: str
    session: str
    base: str = ""

    def __repr__(self) -> str:
        return f"VDI {self.vdi}" + (f" since {self.base}" if self.base else "")


def parse(text: str) -> ExportName:
    """Raises ValueError."""
    parts = urlsplit(text)
    given = parse_qs(parts.query)
    if parts.scheme or parts.netloc or not parts.path.removeprefix("/"):
        raise ValueError("an export's name begins with / and a VDI's uuid")
    if len(given.get(SESSION, ())) != 1:
        raise ValueError(f"an export's name has one {SESSION}")
    return ExportName(parts.path.removeprefix("/"), given[SESSION][0], given.get(BASE, [""])[0])
