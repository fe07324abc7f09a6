"""VDI messages about what is in a disk, and where it can be read."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import Any, Final

from services.api.allowed import CHECKS, published
from services.api.call import Call
from services.api.decisions.liveness import require_live
from services.api.decisions.nbd import PORT, addresses, subject
from services.api.decisions.rows import existing
from services.api.decisions.sr_hosts import host_for, open_on
from services.api.decisions.vdi_rows import refreshed
from services.api.decisions.vdi_types import incompatible
from services.api.operation import Lock, operation
from services.api.storage_hosts import ask, disk
from services.api.subcalls import perform
from shared.contracts import storage as contract
from shared.contracts.db import Change, MapDrop, MapPut
from shared.contracts.transfer import CHECKSUM, Checksum
from shared.store import Store

CONTENT_ID: Final = "content_id"


# ---- back to a snapshot


def _hold_origin(call: Call, store: Store, arguments: tuple[Any, ...]) -> Sequence[Change]:
    """The disk that is taken back is busy too."""
    origin = existing(store, "VDI", arguments[0])["snapshot_of"]
    refusal = CHECKS["VDI"](store, origin, "revert_from")
    if refusal is not None:
        raise refusal
    taken: list[Change] = [
        MapPut(cls="VDI", ref=origin, field="current_operations", key=call.task, value="revert_from")
    ]
    given_back = MapDrop(cls="VDI", ref=origin, field="current_operations", key=call.task)
    if given_back not in call.ending:
        call.ending.append(given_back)
    return [*taken, *published(store, "VDI", origin, taken)]


@operation("VDI.revert", Lock("VDI", "revert_to", sr="vdi_revert", reserve=_hold_origin))
async def revert(call: Call, snapshot: str) -> None:
    row = existing(call.store, "VDI", snapshot)
    place, origin = disk(call.api, snapshot), disk(call.api, row["snapshot_of"])
    request = contract.VdiPair(sr=place.sr, location=place.location, other=origin.location)
    info = await ask(call.api, host_for(call.store, row["SR"]), contract.VDI_REVERT, request)
    call.on_success += refreshed(call.store, row["snapshot_of"], info)


# ---- attached without a database


@operation("VDI.generate_config", Lock("VDI", "generate_config", argument=1))
async def generate_config(call: Call, host: str, vdi: str) -> str:
    require_live(call.store, host)
    host_for(call.store, existing(call.store, "VDI", vdi)["SR"])
    return (await ask(call.api, host, contract.VDI_GENERATE_CONFIG, disk(call.api, vdi))).config


# ---- read whole


@operation("VDI.checksum")
async def checksum(call: Call, self: str) -> str:
    """MD5, hexadecimal. A disk that has been read by the toolstack has a name for its content."""
    row, place = existing(call.store, "VDI", self), disk(call.api, self)
    request = Checksum(dp=f"task/{call.task}", sr=place.sr, location=place.location)
    host = host_for(call.store, row["SR"], open_on(call.store, self))
    found = await ask(call.api, host, CHECKSUM, request)
    if CONTENT_ID not in existing(call.store, "VDI", self)["other_config"]:
        named = MapPut(cls="VDI", ref=self, field="other_config", key=CONTENT_ID, value=str(uuids.uuid4()))
        call.on_success.append(named)
    return found.md5


# ---- read over the network


@operation("VDI.get_nbd_info")
async def get_nbd_info(call: Call, self: str) -> list[dict[str, Any]]:
    """Where the disk can be read from: on hosts that have it, by the addresses that are there for it."""
    row = existing(call.store, "VDI", self)
    if row["type"] == "cbt_metadata":
        raise incompatible(self, row["type"])
    found: list[dict[str, Any]] = []
    for host, ips in addresses(call.store, row["SR"]).items():
        certificate = await perform(call, "host.get_server_certificate", host)
        server = {
            "exportname": f"/{row['uuid']}?session_id={call.session}",
            "port": PORT,
            "cert": certificate,
            "subject": subject(certificate) or existing(call.store, "host", host)["hostname"],
        }
        found += [{**server, "address": ip} for ip in ips]
    return found
