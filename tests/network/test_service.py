"""The network service on the bus: bridged (in a namespace of the test), user-mode and simulated hosts; restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.network.devices import Tap
from services.network.hosts import interfaces
from services.network.links import Link, Links
from services.network.reconcile import stale
from services.network.service import serve
from shared.bus.contract import Empty
from shared.bus.endpoint import Endpoint
from shared.bus.memory import MemoryBroker
from shared.config import BusConfig, Config, HostConfig
from shared.contracts import network as contract
from shared.contracts import vm as vm_contract
from shared.errors import ApiError
from shared.service import Service
from tests.network.support import drop_capabilities

HOST = "a0000000-0000-4000-8000-00000000000a"
SIMULATED = "b0000000-0000-4000-8000-00000000000b"
VM = "c0000000-0000-4000-8000-00000000000c"
GONE = "d0000000-0000-4000-8000-00000000000d"

Start = Callable[..., Awaitable[Service]]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def client(broker: MemoryBroker) -> AsyncIterator[Endpoint]:
    made = await broker.connect("client")
    yield made
    await made.close()


@pytest.fixture
async def start(broker: MemoryBroker, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Service] = []

    async def start(links: Links, **options: Any) -> Service:
        config = Config(
            service="network",
            state_dir=str(tmp_path),
            bus=BusConfig(url="memory:"),
            hosts=[
                HostConfig(uuid=HOST, name="a", address="127.0.0.11"),
                HostConfig(uuid=SIMULATED, name="b", address="127.0.0.12", simulated=True),
            ],
            options={"prefix": "t1-", **options},
        )
        service = Service(config, await broker.connect("network"))
        await serve(service, links)
        await service.open_queues()
        started.append(service)
        return service

    yield start
    for service in started:
        if service.state != "stopping":
            await service.close()


@pytest.fixture
async def any_links() -> AsyncIterator[Links]:
    """The devices of this machine; only looked at."""
    made = Links()
    yield made
    await made.close()


def vif(vm: str = VM, device: int = 0, bridge: str = "xenbr0") -> contract.VifPlug:
    return contract.VifPlug(vm=vm, device=str(device), mac="02:00:00:00:00:01", bridge=bridge)


async def serve_vms(broker: MemoryBroker, *vms: str) -> Endpoint:
    """A vm service that runs these."""

    async def listed(_: Empty) -> vm_contract.VmList:
        return vm_contract.VmList(
            vms=[vm_contract.VmState(uuid=vm, ref="", power_state=vm_contract.PowerState.RUNNING) for vm in vms]
        )

    endpoint = await broker.connect("vm")
    await endpoint.serve(vm_contract.LIST, listed, host=HOST)
    await endpoint.start_consuming("vm", host=HOST)
    return endpoint


@pytest.mark.root
async def test_vifs_come_and_go_with_their_vm(links: Links, start: Start, client: Endpoint) -> None:
    await start(links)
    plugged = await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif(), vif(device=1)]), host=HOST)
    names = {backend.name for backend in plugged.vifs}
    assert {backend.kind for backend in plugged.vifs} == {"tap"}
    assert names <= {link.name for link in await links.run(links.all)}
    await client.call(contract.VIFS_UNPLUG, contract.VifsUnplug(vm=VM), host=HOST)
    assert not names & {link.name for link in await links.run(links.all)}
    await client.call(contract.BRIDGE_DOWN, contract.Bridge(bridge="xenbr0"), host=HOST)
    assert await links.run(lambda: links.find("t1-xenbr0")) is None


@pytest.mark.root
async def test_a_service_that_stops_leaves_the_network_of_its_vms(links: Links, start: Start, client: Endpoint) -> None:
    service = await start(links)
    plugged = await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif()]), host=HOST)
    await service.close()
    assert await links.run(lambda: links.find(plugged.vifs[0].name)) is not None


@pytest.mark.root
async def test_after_a_reboot_the_last_good_configuration_is_back(links: Links, start: Start, client: Endpoint) -> None:
    service = await start(links)
    await client.call(contract.BRIDGE_UP, contract.Bridge(bridge="xenbr0", mtu=1400), host=HOST)
    await client.call(contract.BRIDGE_UP, contract.Bridge(bridge="xapi1"), host=HOST)
    await client.call(contract.BRIDGE_DOWN, contract.Bridge(bridge="xapi1"), host=HOST)
    await service.close()
    await links.run(lambda: links.delete("t1-xenbr0"))
    await start(links)
    bridge = await links.run(lambda: links.find("t1-xenbr0"))
    assert bridge is not None
    assert (bridge.mtu, bridge.up) == (1400, True)
    assert await links.run(lambda: links.find("t1-xapi1")) is None


@pytest.mark.root
async def test_taps_of_vms_that_went_while_the_service_was_down_are_removed(
    links: Links, start: Start, client: Endpoint, broker: MemoryBroker
) -> None:
    service = await start(links)
    both = contract.VifsPlug(vifs=[vif(), vif(vm=GONE)])
    kept, gone = (await client.call(contract.VIFS_PLUG, both, host=HOST)).vifs
    await service.close()
    again = await start(links, reconcile_after=0)
    vms = await serve_vms(broker, VM)  # later than the network service: it waits
    [work] = [task for task in again._tasks if task.get_name().startswith("taps")]
    await work
    assert await links.run(lambda: links.find(kept.name)) is not None
    assert await links.run(lambda: links.find(gone.name)) is None
    await vms.close()


async def test_only_an_unused_tap_of_a_vm_missed_twice_is_stale() -> None:
    def tap(name: str, vm: str, is_open: bool = False) -> Tap:
        return Tap(name=name, vm=vm, device="0", open=is_open)

    taps = [tap("a", "gone"), tap("b", "alive"), tap("c", "starting"), tap("d", "open", True), tap("e", "new")]
    assert stale(taps, at_start={"a", "b", "c", "d"}, plugged={"starting"}, alive={"alive"}) == taps[:1]


@pytest.mark.root
async def test_a_host_without_privileges_falls_back_to_user_mode(links: Links, start: Start, client: Endpoint) -> None:
    await links.run(drop_capabilities)
    await start(links)
    plugged = await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif()]), host=HOST)
    assert [(backend.kind, backend.name) for backend in plugged.vifs] == [("user", "")]
    await client.call(contract.VIFS_UNPLUG, contract.VifsUnplug(vm=VM), host=HOST)


@pytest.mark.root
async def test_where_bridges_are_required_and_not_allowed_the_error_says_why(
    links: Links, start: Start, client: Endpoint
) -> None:
    await links.run(drop_capabilities)
    await start(links, mode="bridge")
    with pytest.raises(ApiError, match="HOST_CANNOT_ATTACH_NETWORK") as refused:
        await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif()]), host=HOST)
    assert refused.value.params[:2] == [HOST, "xenbr0"]
    assert "Operation not permitted" in refused.value.params[2]


async def test_user_mode_needs_nothing(any_links: Links, start: Start, client: Endpoint) -> None:
    await start(any_links, mode="user")
    plugged = await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif()]), host=HOST)
    assert plugged.vifs[0].kind == "user"
    await client.call(contract.BRIDGE_UP, contract.Bridge(bridge="xenbr0"), host=HOST)
    scanned = await client.call(contract.SCAN, Empty(), host=HOST)
    assert "lo" not in {interface.device for interface in scanned.interfaces}


async def test_a_simulated_host_has_a_nic_and_vifs_without_devices(
    any_links: Links, start: Start, client: Endpoint
) -> None:
    await start(any_links, mode="user")
    plugged = await client.call(contract.VIFS_PLUG, contract.VifsPlug(vifs=[vif()]), host=SIMULATED)
    assert plugged.vifs[0].kind == "none"
    [nic] = (await client.call(contract.SCAN, Empty(), host=SIMULATED)).interfaces
    assert (nic.device, nic.carrier, nic.addresses) == ("eth0", True, ["127.0.0.12/8"])
    assert [nic] == (await client.call(contract.SCAN, Empty(), host=SIMULATED)).interfaces


def test_nics_are_physical_devices_and_chosen_virtual_ones() -> None:
    def link(name: str, kind: str = "", loopback: bool = False) -> Link:
        return Link(
            index=1, name=name, kind=kind, mark="", mac="", mtu=1500, master=0, up=True, carrier=True, loopback=loopback
        )

    links = [link("lo", loopback=True), link("enp3s0"), link("eth0", "veth"), link("veth7", "veth")]
    links += [link("xenbr0", "bridge"), link("tap0", "tun"), link("eth0.5", "vlan"), link("bond0", "bond")]
    assert [nic.device for nic in interfaces(links, ["eth*"])] == ["enp3s0", "eth0"]
