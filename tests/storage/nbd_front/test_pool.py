"""A member of a real pool serves its disks, with its own certificate, on NBD's port."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from services.storage.nbd.address import PORT, Address
from services.storage.nbd.client import NbdClient, NbdError
from tests.api.core import records
from tests.e2e import client
from tests.support.pool import PoolUnderTest

pytestmark = [pytest.mark.pool, pytest.mark.timeout(120)]
HOST = "host2"
PATIENCE = 20.0


async def first_bytes(info: dict[str, Any]) -> bytes:
    tls = ssl.create_default_context(cadata=info["cert"])
    address = Address(host=info["address"], port=int(info["port"]), export=info["exportname"])
    async with await NbdClient.connect(address, tls=tls, server_name=info["subject"]) as disk:
        return await disk.read(0, 512)


def read(info: dict[str, Any]) -> bytes:
    """As soon as the host listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return asyncio.run(first_bytes(info))
        except NbdError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def until_closed(api: Any, vdi: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while api.VDI.get_VBDs(vdi):
        assert time.monotonic() < deadline, "a VBD of a client that is gone"
        time.sleep(0.05)


def test_disks_of_a_member_are_read_where_the_coordinator_says(simulator_pool: PoolUnderTest, tmp_path: Path) -> None:
    simulator_pool.wait_ready()
    with client.logged_in(simulator_pool) as session:
        api = session.xenapi
        [host] = api.host.get_by_name_label(HOST)
        config = {"location": str(tmp_path)}
        sr = api.SR.create(host, config, "0", "served", "", "file", "", False, {})
        vdi = api.VDI.create({**records.vdi(sr, 1 << 20), "virtual_size": str(1 << 20)})
        networks = [ref for ref, pif in api.PIF.get_all_records().items() if pif["host"] == host and pif["IP"]]
        network = api.PIF.get_network(networks[0])
        api.network.add_purpose(network, "nbd")
        try:
            [info] = api.VDI.get_nbd_info(vdi)
            assert (info["address"], info["port"]) == (simulator_pool.hosts[HOST], str(PORT))
            assert read(info) == bytes(512)
        finally:
            api.network.remove_purpose(network, "nbd")
            until_closed(api, vdi)
            api.VDI.destroy(vdi)
            for pbd in api.SR.get_PBDs(sr):
                api.PBD.unplug(pbd)
            api.SR.destroy(sr)
