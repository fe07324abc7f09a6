"""Passwords in the settings of an SR: the API gives them beside their secrets (`..password` and `..password_secret`);
on this host's disk there are only the secrets' uuids.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from shared.bus.interface import Bus
from shared.contracts.secrets import SECRET_VALUE, SecretId

SecretOf = Callable[[str], Awaitable[str]]
"""From a secret's uuid to what it holds. Raises UUID_INVALID, and whatever keeps the API from answering."""

_PASSWORD: Final = "password"
_SECRET: Final = "_secret"


def without_passwords(settings: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in settings.items() if not (key.endswith(_PASSWORD) and key + _SECRET in settings)
    }


async def with_passwords(settings: Mapping[str, str], secret_of: SecretOf) -> dict[str, str]:
    """Those that have a secret are looked up."""
    named = {key.removesuffix(_SECRET): uuid for key, uuid in settings.items() if key.endswith(_PASSWORD + _SECRET)}
    return {**settings, **{key: await secret_of(uuid) for key, uuid in named.items() if key not in settings}}


def on_bus(bus: Bus, host: str) -> SecretOf:
    """Asks the API process of the host (uuid)."""

    async def secret_of(uuid: str) -> str:
        return (await bus.call(SECRET_VALUE, SecretId(uuid=uuid), host=host)).value

    return secret_of
