"""Messages that a host answers, of hosts that cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.api.harness import Client, Pool

UNKNOWN = "OpaqueRef:00000000-0000-4000-8000-0000000000aa"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder: Path = tmp_path_factory.mktemp("pool")
    pool = await Pool.start(folder, hosts=1)
    yield await pool.login()
    await pool.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("host.set_iscsi_iqn", (UNKNOWN, "")),
        ("host.set_console_idle_timeout", (UNKNOWN, -1)),
        ("host.backup_rrds", (UNKNOWN, 0.0)),
        ("host.cleanup_pool_secret", (UNKNOWN, "no secret", "")),
        ("PIF.create_VLAN", ("eth0", UNKNOWN, UNKNOWN, 9999)),
        ("network.attach", (UNKNOWN, UNKNOWN)),
    ],
)
async def test_an_unknown_host_is_offline_whatever_else_is_wrong(
    client: Client, message: str, arguments: tuple[object, ...]
) -> None:
    assert await client.refusal(message, *arguments) == ["HOST_OFFLINE", UNKNOWN]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("message", ["host.disable", "host.sync_data", "host.reboot"])
async def test_an_unknown_host_is_no_handle_where_the_coordinator_looks_at_its_row_first(
    client: Client, message: str
) -> None:
    assert await client.refusal(message, UNKNOWN) == ["HANDLE_INVALID", "host", UNKNOWN]
