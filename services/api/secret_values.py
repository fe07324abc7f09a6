"""Tells other services of this process's hosts what secrets hold (`shared.contracts.secrets`)."""

from __future__ import annotations

from services.api import newest_rows
from services.api.api import Api
from shared.contracts.secrets import SECRET_VALUE, SecretId, SecretValue
from shared.errors import ApiError
from shared.service import Service


async def serve(service: Service, api: Api) -> None:
    async def value(request: SecretId) -> SecretValue:
        """Raises UUID_INVALID: the caller takes it for gone."""
        ref = api.store.ref_of_uuid("secret", request.uuid)
        if ref is None:
            await newest_rows.arrive(api)
            ref = api.store.ref_of_uuid("secret", request.uuid)
        if ref is None:
            raise ApiError("UUID_INVALID", "secret", request.uuid)
        return SecretValue(value=api.store.get("secret", ref, "value"))

    for host in service.hosts:
        await service.serve(SECRET_VALUE, value, host=host.uuid)
