"""New rows: decisions get their uuids from the caller, so that they depend on their arguments alone."""

from __future__ import annotations

from collections.abc import Callable

Fresh = Callable[[], str]
"""Makes a new uuid."""


def ref_of(uuid: str) -> str:
    """The reference of a row that is made with that uuid."""
    return f"OpaqueRef:{uuid}"
