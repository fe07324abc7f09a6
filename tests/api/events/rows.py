"""Networks, as small rows that come, change and go."""

from __future__ import annotations

from typing import Any

from shared.contracts.db import Create, Delete, Update


def network(ref: str, **fields: Any) -> Create:
    return Create(cls="network", ref=ref, fields={"name_label": ref, "bridge": ref, **fields})


def rename(ref: str, name: str) -> Update:
    return Update(cls="network", ref=ref, fields={"name_label": name})


def gone(ref: str) -> Delete:
    return Delete(cls="network", ref=ref)
