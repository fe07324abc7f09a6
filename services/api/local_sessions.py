"""Sessions that only this process knows: they need no database, so a host without its coordinator can be repaired.

They are never written down, nobody else accepts them, and no role limits them (`wire-protocol` 6.2).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Final

from shared.datamodel import model
from shared.store import NULL

LIMIT: Final = 400
"""Sessions at once; beyond, the one idle longest ends."""

IDLE_LIMIT: Final = 86400.0

_BLANK: Final = {name: field.type.empty() for name, field in model.classes["session"].fields.items()}


class LocalSessions:
    """`clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._used: dict[str, float] = {}
        """Reference to the time of its last call, the one idle longest first."""

    def open(self, user: str, *, pool: bool) -> str:
        """Its reference, which is the credential. `pool`: another host opened it."""
        self._expire()
        while len(self._rows) >= LIMIT:
            self.close(next(iter(self._used)))
        ref = f"OpaqueRef:{uuid.uuid4()}"
        self._rows[ref] = {
            **deepcopy(_BLANK),
            "uuid": str(uuid.uuid4()),
            "is_local_superuser": True,
            "auth_user_name": user,
            "pool": pool,
            "subject": NULL,
        }
        self._used[ref] = self._clock()
        return ref

    def find(self, ref: str) -> Mapping[str, Any] | None:
        """What a row of the database would say of it; finding it is using it."""
        self._expire()
        row = self._rows.get(ref)
        if row is not None:
            del self._used[ref]
            self._used[ref] = self._clock()
        return row

    def close(self, ref: str) -> bool:
        """Whether there was such a session."""
        self._used.pop(ref, None)
        return self._rows.pop(ref, None) is not None

    def _expire(self) -> None:
        oldest = self._clock() - IDLE_LIMIT
        while self._used and next(iter(self._used.values())) < oldest:
            self.close(next(iter(self._used)))
