"""SR messages that change its row, or ask what it is fit for."""

from __future__ import annotations

from typing import Any

from services.api.call import Call
from services.api.decisions import sm_sessions, sr_everywhere
from services.api.decisions.rows import existing
from services.api.operation import operation
from services.api.storage_hosts import ask, host_for
from shared.contracts import storage as contract
from shared.contracts.db import Update
from shared.errors import ApiError


def _assert(refusal: ApiError | None) -> None:
    if refusal is not None:
        raise refusal


def _label(field: str) -> None:
    """The SR must be attached somewhere: a driver may keep its names in the medium."""

    @operation(f"SR.set_{field}")
    async def set_label(call: Call, sr: str, value: str) -> None:
        host = host_for(call.store, sr)
        if sm_sessions.is_own(call.store, call.session, sr):
            await call.transact([Update(cls="SR", ref=sr, fields={field: value})])
            return
        row = existing(call.store, "SR", sr)
        names = {"name_label": row["name_label"], "name_description": row["name_description"], field: value}
        await ask(call.api, host, contract.SR_SET_NAME, contract.SrName(sr=row["uuid"], **names))
        await call.transact([Update(cls="SR", ref=sr, fields={field: value})])


for _field in ("name_label", "name_description"):
    _label(_field)


def _figure(field: str) -> None:
    """What only its plug-in knows. Others are refused before anybody looks whether there is such an SR."""

    @operation(f"SR.set_{field}")
    async def set_figure(call: Call, self: str, value: int) -> None:
        sm_sessions.require_own(call.store, call.session, self)
        existing(call.store, "SR", self)
        await call.transact([Update(cls="SR", ref=self, fields={field: value})])


for _field in ("physical_size", "virtual_allocation", "physical_utilisation"):
    _figure(_field)


@operation("SR.set_shared")
async def set_shared(call: Call, sr: str, value: bool) -> None:
    """What several hosts know stays shared."""
    pbds = existing(call.store, "SR", sr)["PBDs"]
    if not value and len(pbds) > 1:
        raise ApiError("SR_HAS_MULTIPLE_PBDS", *pbds)
    await call.transact([Update(cls="SR", ref=sr, fields={"shared": value})])


# ---- what it is fit for


@operation("SR.assert_can_host_ha_statefile")
def assert_can_host_ha_statefile(call: Call, sr: str) -> None:
    _assert(sr_everywhere.check_statefile(call.store, sr))


# ---- figures: hosts measure themselves and VMs, not SRs


@operation("SR.get_data_sources")
def get_data_sources(call: Call, sr: str) -> list[dict[str, Any]]:
    host_for(call.store, sr)
    return []


@operation("SR.query_data_source", built=False)
def query_data_source(call: Call, sr: str, data_source: str) -> float:
    host_for(call.store, sr)
    raise ApiError("INVALID_VALUE", "data_source", data_source)


@operation("SR.record_data_source")
def record_data_source(call: Call, sr: str, data_source: str) -> None:
    """One that does not exist is not recorded; nobody is told."""
    host_for(call.store, sr)


@operation("SR.forget_data_source_archives")
def forget_data_source_archives(call: Call, sr: str, data_source: str) -> None:
    """There are none."""
    host_for(call.store, sr)
