"""Messages of classes Caller and Rate_limit. Calls are not counted yet; what can be no limit is refused as such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import plain_class
from shared.errors import ApiError


def _new_caller(call: Call, fields: Mapping[str, Any]) -> ApiError:
    if not fields["user_agent"] and not fields["client_ip"]:
        return ApiError("INVALID_VALUE", "user_agent/client_ip", "at least one of user_agent or client_ip must be set")
    return ApiError("NOT_IMPLEMENTED", "Caller.create")


def _new_limit(call: Call, fields: Mapping[str, Any]) -> ApiError:
    for name in ("fill_rate", "burst_size"):
        if not fields[name] > 0:
            return ApiError("INVALID_VALUE", name, _number(fields[name]))
    return ApiError("NOT_IMPLEMENTED", "Rate_limit.create")


def _number(value: float) -> str:
    """With its point, as the original writes floats in errors."""
    text = f"{value:.12g}"
    return text if not text.lstrip("-").isdecimal() else f"{text}."


plain_class("Caller", new=_new_caller, built=False)
plain_class("Rate_limit", new=_new_limit, built=False)
