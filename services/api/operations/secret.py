"""Messages of class secret."""

from __future__ import annotations

from services.api.call import Call
from services.api.construct import insert, plain_class
from services.api.operation import operation
from shared.errors import internal_error

plain_class("secret")


@operation("secret.introduce")
async def introduce(call: Call, uuid: str, value: str, other_config: dict[str, str]) -> str:
    """A secret that keeps the uuid it had in another pool."""
    if uuid in call.store.by_uuid:
        raise internal_error(f"the uuid {uuid} is taken")
    return await insert(call, "secret", {"uuid": uuid, "value": value, "other_config": other_config})
