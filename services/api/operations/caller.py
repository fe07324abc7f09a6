"""Messages of class Caller: who calls, in which groups, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from services.api.call import Call
from services.api.construct import insert, remove
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from services.api.rate_limit.callers import Known, Pattern
from shared.contracts.db import SetAdd, SetDrop, Update
from shared.errors import ApiError

LONGEST_GROUP: Final = 64
_GROUP: Final = re.compile(r"[A-Za-z0-9_.-]+")
"""Groups give data sources their names."""
BOTH: Final = "user_agent/client_ip"


@operation("Caller.create")
async def create(call: Call, args: Mapping[str, Any]) -> str:
    """A caller that is there already gets the names, and is its administrator's from then on."""
    fields = constructor_fields("Caller", args)
    if not fields["user_agent"] and not fields["client_ip"]:
        raise ApiError("INVALID_VALUE", BOTH, "at least one of user_agent or client_ip must be set")
    pattern = Pattern.of(fields)
    if pattern.is_anything:
        raise ApiError("INVALID_VALUE", BOTH, "all-wildcard pattern not allowed")
    async with call.api.turns.of("callers"):  # of all: there is no row that stands for them
        for ref, row in call.store.rows("Caller").items():
            if Pattern.of(row) == pattern:
                names = {name: fields[name] for name in ("name_label", "name_description")}
                await call.transact([Update(cls="Caller", ref=ref, fields={**names, "auto_registered": False})])
                return ref
        return await insert(call, "Caller", fields)


@operation("Caller.destroy")
async def destroy(call: Call, self: str) -> None:
    await remove(call, "Caller", self)


@operation("Caller.add_group")
async def add_group(call: Call, self: str, group: str) -> None:
    _require_name(group)
    if len(group) > LONGEST_GROUP:
        raise ApiError("INVALID_VALUE", "group", f"group name must be at most {LONGEST_GROUP} characters")
    if not _GROUP.fullmatch(group):
        reason = "group name may only contain alphanumerics and '_', '-' or '.' characters"
        raise ApiError("INVALID_VALUE", "group", reason)
    existing(call.store, "Caller", self)
    await call.transact([SetAdd(cls="Caller", ref=self, field="groups", value=group)])


@operation("Caller.remove_group")
async def remove_group(call: Call, self: str, group: str) -> None:
    existing(call.store, "Caller", self)
    await call.transact([SetDrop(cls="Caller", ref=self, field="groups", value=group)])


def _require_name(group: str) -> None:
    if not group:
        raise ApiError("INVALID_VALUE", "group", "empty group name")


# ---- figures, since the service started


def _known(call: Call, ref: str) -> Known:
    existing(call.store, "Caller", ref)
    return call.api.limits.callers[ref]


def _group(call: Call, group: str) -> list[Known]:
    _require_name(group)
    return [known for known in call.api.limits.callers if group in known.groups]


@operation("Caller.query_token_usage")
def query_token_usage(call: Call, self: str) -> float:
    return _known(call, self).usage.tokens


@operation("Caller.query_call_count")
def query_call_count(call: Call, self: str) -> int:
    return _known(call, self).usage.calls


@operation("Caller.query_group_token_usage")
def query_group_token_usage(call: Call, group: str) -> float:
    return sum((known.usage.tokens for known in _group(call, group)), 0.0)


@operation("Caller.query_group_call_count")
def query_group_call_count(call: Call, group: str) -> int:
    return sum(known.usage.calls for known in _group(call, group))


@operation("Caller.query_all_usage")
def query_all_usage(call: Call) -> list[list[str]]:
    """Uuid, name, tokens and calls of each, those who used most first."""
    ordered = sorted(call.api.limits.callers, key=lambda known: known.usage.tokens, reverse=True)
    found = [(known.usage, call.store.row("Caller", known.ref)) for known in ordered]
    return [
        [row["uuid"], row["name_label"], f"{usage.tokens:.3f}", str(usage.calls)]
        for usage, row in found
        if row is not None
    ]
