"""Messages of classes subject and auth: users of an external directory. No directory can be asked yet, so external
authentication is always off, and most of these messages say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.call import Call
from services.api.construct import plain_class
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.operations.role import names
from shared.errors import ApiError


def _directory_off(call: Call, fields: Mapping[str, Any]) -> ApiError | None:
    return ApiError("AUTH_IS_DISABLED")


plain_class("subject", new=_directory_off, built=False)


@operation("subject.get_permissions_name_label")
def get_permissions_name_label(call: Call, self: str) -> list[str]:
    return names(existing(call.store, "subject", self)["roles"])


def _off(message: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, *arguments: Any) -> None:
        raise ApiError("AUTH_IS_DISABLED")


for _message in ("get_subject_identifier", "get_subject_information_from_identifier", "get_group_membership"):
    _off(f"auth.{_message}")
