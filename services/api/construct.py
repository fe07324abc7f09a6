"""Classes whose `create` and `destroy` write and remove a row, and nothing else."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any

from services.api.call import Call, new_ref
from services.api.decisions.rows import existing
from services.api.implicit import constructor_fields
from services.api.operation import operation
from shared.contracts.db import Change, Create, Delete
from shared.errors import ApiError

CheckNew = Callable[[Call, Mapping[str, Any]], ApiError | None]
"""Why a row with these fields is refused; None if it is not."""
CheckOld = Callable[[Call, str], ApiError | None]
"""Why that row may not be destroyed."""


async def insert(call: Call, cls: str, fields: Mapping[str, Any]) -> str:
    """A new row; it gets a uuid unless it brings one."""
    ref = new_ref()
    await call.transact([Create(cls=cls, ref=ref, fields={"uuid": str(uuids.uuid4()), **fields})])
    return ref


async def remove(call: Call, cls: str, ref: str, also: list[Change] | None = None) -> None:
    """Raises HANDLE_INVALID."""
    existing(call.store, cls, ref)
    await call.transact([*(also or []), Delete(cls=cls, ref=ref)])


def plain_class(cls: str, *, new: CheckNew | None = None, old: CheckOld | None = None, built: bool = True) -> None:
    """Registers `create` and `destroy`. `built` false: `new` always refuses."""

    @operation(f"{cls}.create", built=built)
    async def create(call: Call, args: Mapping[str, Any]) -> str:
        fields = constructor_fields(cls, args)
        refusal = new(call, fields) if new is not None else None
        if refusal is not None:
            raise refusal
        return await insert(call, cls, fields)

    @operation(f"{cls}.destroy")
    async def destroy(call: Call, self: str) -> None:
        existing(call.store, cls, self)
        refusal = old(call, self) if old is not None else None
        if refusal is not None:
            raise refusal
        await remove(call, cls, self)
