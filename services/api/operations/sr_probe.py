"""Messages that look for SRs on media that no SR is attached from (storage 4.2)."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

from services.api.call import Call
from services.api.decisions import device_secrets
from services.api.decisions.liveness import require_live
from services.api.decisions.sm_features import is_v1
from services.api.operation import operation
from services.api.operations.sr import require_driver
from services.api.storage_hosts import ask
from shared.contracts import storage as contract
from shared.contracts.db import Create, Delete
from shared.errors import ApiError


async def _probe(
    call: Call, host: str, device_config: dict[str, str], type_: str, sm_config: dict[str, str]
) -> contract.SrProbed:
    """Passwords are secrets while a SMAPIv1 driver looks for them, and no longer."""
    require_live(call.store, host)
    name = require_driver(call.store, type_)
    shown, secrets = device_secrets.hidden(device_config)
    if not is_v1(call.store, {"type": name}):
        shown = device_secrets.told(call.store, device_config)
    elif secrets:
        await call.transact(secrets)
        call.ending += [Delete(cls=secret.cls, ref=secret.ref) for secret in secrets if isinstance(secret, Create)]
    request = contract.SrProbe(type=name, device_config=shown, sm_config=sm_config)
    return await ask(call.api, host, contract.SR_PROBE, request)


@operation("SR.probe")
async def probe(call: Call, host: str, device_config: dict[str, str], type: str, sm_config: dict[str, str]) -> str:
    """XML: what the driver says if that is text, else a list of the SRs that were found."""
    found = await _probe(call, host, device_config, type, sm_config)
    return found.raw or xml([result.sr for result in found.results if result.sr is not None])


def xml(srs: list[contract.ProbedSr]) -> str:
    """`<SRlist>` of `<SR>` with size (bytes), names and, where there is an SR, `<UUID>`."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<SRlist>"]
    for sr in srs:
        members = {"size": str(sr.total_space), "name_label": sr.name_label, "name_description": sr.name_description}
        if sr.uuid:
            members["UUID"] = sr.uuid
        lines += ["<SR>", *(f"<{name}>{escape(text)}</{name}>" for name, text in members.items()), "</SR>"]
    return "\n".join([*lines, "</SRlist>"])


@operation("SR.probe_ext")
async def probe_ext(
    call: Call, host: str, device_config: dict[str, str], type: str, sm_config: dict[str, str]
) -> list[dict[str, Any]]:
    """Records; a driver whose answers are text has none: SR_OPERATION_NOT_SUPPORTED []."""
    found = await _probe(call, host, device_config, type, sm_config)
    if found.raw:
        raise ApiError("SR_OPERATION_NOT_SUPPORTED")
    return [
        {
            "configuration": dict(result.configuration),
            "complete": result.complete,
            "sr": _record(result.sr) if result.sr is not None else None,
            "extra_info": dict(result.extra_info),
        }
        for result in found.results
    ]


def _record(sr: contract.ProbedSr) -> dict[str, Any]:
    return {
        "uuid": sr.uuid or None,
        "name_label": sr.name_label,
        "name_description": sr.name_description,
        "free_space": sr.free_space,
        "total_space": sr.total_space,
        "clustered": sr.clustered,
        "health": sr.health,
    }


@operation("SR.make", built=False)
def make(call: Call, host: str, *arguments: Any) -> str:
    """Replaced by SR.create before anybody used it."""
    require_live(call.store, host)
    raise ApiError("MESSAGE_DEPRECATED")
