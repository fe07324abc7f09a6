"""Messages of class pool about what guests get from it."""

from __future__ import annotations

import base64
import binascii
import io
import tarfile
from typing import Final
from urllib.parse import urlsplit

from services.api.call import Call
from services.api.decisions.rows import existing
from services.api.operation import operation
from shared.contracts.db import MapDrop, MapPut
from shared.errors import ApiError

# ---- settings that guest agents read


def _is_switch(value: str) -> bool:
    return value in ("true", "false")


def _is_url(value: str) -> bool:
    try:
        return urlsplit(value).scheme in ("http", "https")
    except ValueError:
        return False


GUEST_SETTINGS: Final = {"auto_update_enabled": _is_switch, "auto_update_url": _is_url}
"""Keys of `guest_agent_config`, and which values they may have."""


@operation("pool.add_to_guest_agent_config")
async def add_to_guest_agent_config(call: Call, self: str, key: str, value: str) -> None:
    existing(call.store, "pool", self)
    if key not in GUEST_SETTINGS or not GUEST_SETTINGS[key](value):
        raise ApiError("INVALID_VALUE", "guest_agent_config", f"{key} = {value}")
    await call.transact([MapPut(cls="pool", ref=self, field="guest_agent_config", key=key, value=value, new=True)])


@operation("pool.remove_from_guest_agent_config")
async def remove_from_guest_agent_config(call: Call, self: str, key: str) -> None:
    existing(call.store, "pool", self)
    await call.transact([MapDrop(cls="pool", ref=self, field="guest_agent_config", key=key)])


# ---- secure boot


def _refused(message: str, reason: str) -> None:
    @operation(message, built=False)
    def refuse(call: Call, self: str, value: str) -> None:
        existing(call.store, "pool", self)
        raise ApiError("OPERATION_NOT_ALLOWED", reason)


_refused("pool.set_uefi_certificates", "Set custom_uefi_certificates instead.")
_refused("pool.set_custom_uefi_certificates", "Custom UEFI certificates are not allowed here.")

NEEDED: Final = frozenset({"PK.auth", "KEK.auth", "db.auth"})
REVOKED: Final = "dbx.auth"


@operation("pool.get_guest_secureboot_readiness")
def get_guest_secureboot_readiness(call: Call, self: str) -> str:
    """Whether guests that boot securely find the certificates for it."""
    row = existing(call.store, "pool", self)
    names = archived(row["custom_uefi_certificates"] or row["uefi_certificates"])
    if not names >= NEEDED:
        return "not_ready"
    return "ready" if REVOKED in names else "ready_no_dbx"


def archived(text: str) -> frozenset[str]:
    """Names of the files in a tar archive in base64; none if it is no such thing."""
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text, validate=True))) as archive:
            return frozenset(name.removeprefix("./") for name in archive.getnames())
    except (tarfile.TarError, binascii.Error, ValueError, EOFError):
        return frozenset()
