"""pool.enable_redo_log and disable_redo_log: which disk, where it is open, and every reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.bus.interface import BusError
from shared.contracts.db import REDO_LOG_DATAPATHS, USE_REDO_LOG, Update
from shared.redo_blocks import layout
from tests.api.core import records
from tests.api.messages.real_storage import Real
from tests.storage.support import MIB


async def reason(real: Real, sr: str) -> str:
    code, why = await real.client.refusal("pool.enable_redo_log", sr)
    assert code == "CANNOT_ENABLE_REDO_LOG"
    return why


def pool_row(real: Real) -> dict[str, object]:
    [row] = real.pool.store.rows("pool").values()
    return dict(row)


def disks(real: Real, sr: str) -> list[str]:
    return list(real.pool.row("SR", sr)["VDIs"])


def files(real: Real, name: str) -> list[Path]:
    return list((real.folder / name).glob(".raw-*"))


async def test_the_disk_is_made_once_and_has_the_database_when_it_is_answered(real: Real) -> None:
    call, sr = real.client.call, await real.sr("log")
    await call("pool.enable_redo_log", sr)
    [vdi] = disks(real, sr)
    row, pool = real.pool.row("VDI", vdi), pool_row(real)
    assert (pool["redo_log_enabled"], pool["redo_log_vdi"]) == (True, vdi)
    assert (row["type"], row["virtual_size"], row["sharable"], row["sm_config"]["type"]) == (
        *("redo_log", 3804 * MIB, True, "raw"),
    )
    [file] = files(real, "log")
    with file.open("rb") as opened:
        assert layout.valid_half(opened.read(layout.HALVES))
    await call("pool.enable_redo_log", sr)
    assert disks(real, sr) == [vdi]
    assert await real.client.refusal("VDI.destroy", vdi) == ["REDO_LOG_IS_ENABLED"]
    [pbd] = real.pool.row("SR", sr)["PBDs"]
    assert (await real.client.refusal("PBD.unplug", pbd))[0] == "SR_DEVICE_IN_USE"
    await call("host.prepare_for_poweroff", real.pool.host_ref(0))
    assert real.pool.row("PBD", pbd)["currently_attached"], "the database writes there to the end"
    await call("pool.disable_redo_log")
    await call("pool.disable_redo_log")
    assert not pool_row(real)["redo_log_enabled"]
    assert real.bench.nothing_is_open()
    await call("pool.enable_redo_log", sr)
    assert disks(real, sr) == [vdi], "one that is there is used"
    await call("pool.disable_redo_log")
    await call("VDI.destroy", vdi)
    assert files(real, "log") == []


async def test_another_sr_takes_the_place_of_the_first(real: Real) -> None:
    first, second = await real.sr("first"), await real.sr("second")
    await real.client.call("pool.enable_redo_log", first)
    await real.client.call("pool.enable_redo_log", second)
    [vdi], [old] = disks(real, second), disks(real, first)
    assert pool_row(real)["redo_log_vdi"] == vdi
    assert await real.client.refusal("VDI.destroy", old) == ["REDO_LOG_IS_ENABLED"]
    await real.client.call("pool.disable_redo_log")
    await real.client.call("VDI.destroy", old)
    assert real.bench.nothing_is_open()


async def test_a_disk_stays_open_when_nobody_knows_whether_the_database_has_taken_it(
    real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    sr, bus = await real.sr("log"), real.pool.api.bus
    answered = bus.call

    async def unheard(method: Any, request: Any, **more: Any) -> Any:
        answer = await answered(method, request, **more)
        if method is USE_REDO_LOG:
            raise BusError("INTERNAL_ERROR", "no answer")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(bus, "call", unheard)
        assert "no answer" in await reason(real, sr)
    await real.pool.until(lambda: pool_row(real)["redo_log_enabled"])
    [held] = real.bench.host.datapaths.held()
    [vdi] = disks(real, sr)
    assert held.dp == REDO_LOG_DATAPATHS + real.pool.row("VDI", vdi)["uuid"]
    await real.client.call("pool.disable_redo_log")
    assert real.bench.nothing_is_open()


async def test_what_is_in_the_way_is_told(real: Real) -> None:
    assert "HANDLE_INVALID" in await reason(real, "OpaqueRef:x")
    simulated = real.pool.ref("SR", "storage")
    assert "SR_OPERATION_NOT_SUPPORTED" in await reason(real, simulated)
    sr = await real.sr("log")
    [pbd] = real.pool.row("SR", sr)["PBDs"]
    await real.client.call("PBD.unplug", pbd)
    await reason(real, sr)
    await real.client.call("PBD.plug", pbd)
    await real.client.call("VDI.create", records.vdi(sr, 3804 * MIB, type="redo_log"))
    assert "raw" in await reason(real, sr), "somebody has made one of another format"
    host = next(iter(real.pool.store.rows("host")))
    metrics = real.pool.row("host", host)["metrics"]
    await real.pool.write(Update(cls="host_metrics", ref=metrics, fields={"live": False}))
    assert "HOST_OFFLINE" in await reason(real, sr)
    assert not pool_row(real)["redo_log_enabled"]
    assert real.bench.nothing_is_open()
