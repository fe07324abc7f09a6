"""Messages of class console. Consoles come and go with their VM; nobody makes them, with the original neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.operation import operation
from shared.errors import ApiError


@operation("console.create", built=False)
def create(call: Call, args: Mapping[str, Any]) -> str:
    raise ApiError("NOT_IMPLEMENTED", "Console.create")


@operation("console.destroy", built=False)
def destroy(call: Call, self: str) -> None:
    raise ApiError("NOT_IMPLEMENTED", "Console.destroy")
