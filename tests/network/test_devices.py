"""Bridges and taps on a real kernel, in a namespace of the test."""

from __future__ import annotations

import fcntl
import os
import struct

import pytest

from services.network import names
from services.network.cleanup import cleanup
from services.network.devices import Devices, usable
from services.network.links import Link, LinkError, Links
from shared.contracts.network import VifPlug
from shared.errors import ApiError
from tests.network.support import drop_capabilities

pytestmark = pytest.mark.root

HOST = "a0000000-0000-4000-8000-00000000000a"
VM = "c0000000-0000-4000-8000-00000000000c"
OTHER = "d0000000-0000-4000-8000-00000000000d"


def vif(device: int = 0, vm: str = VM, bridge: str = "xenbr0", mtu: int = 1500) -> VifPlug:
    return VifPlug(vm=vm, device=str(device), mac="02:00:00:00:00:01", bridge=bridge, mtu=mtu)


@pytest.fixture
def devices(links: Links) -> Devices:
    return Devices(links, "t1-", HOST)


async def test_a_plugged_vif_has_a_tap_on_its_bridge(links: Links, devices: Devices) -> None:
    def check() -> None:
        backends = devices.plug([vif(0, mtu=1400), vif(1, bridge="xapi0")])
        assert [backend.kind for backend in backends] == ["tap", "tap"]
        tap, bridge = links.find(backends[0].name), links.find("t1-xenbr0")
        assert tap is not None
        assert bridge is not None
        assert (bridge.kind, bridge.up, bridge.mtu) == ("bridge", True, 1400)
        assert (tap.kind, tap.up, tap.mtu, tap.master) == ("tun", True, 1400, bridge.index)
        assert all(not link.addresses for link in links.all() if link.kind)

    await links.run(check)


async def test_plugging_again_changes_nothing(links: Links, devices: Devices) -> None:
    def check() -> None:
        first = devices.plug([vif(0), vif(1)])
        before = ours(links)
        assert devices.plug([vif(0), vif(1)]) == first
        assert ours(links) == before

    await links.run(check)


async def test_a_vif_moves_to_another_bridge(links: Links, devices: Devices) -> None:
    def check() -> None:
        [backend] = devices.plug([vif()])
        devices.plug([vif(bridge="xapi7")])
        tap, bridge = links.find(backend.name), links.find("t1-xapi7")
        assert tap is not None
        assert bridge is not None
        assert tap.master == bridge.index

    await links.run(check)


async def test_all_vifs_are_plugged_or_none(links: Links, devices: Devices) -> None:
    def check() -> None:
        devices.plug([vif(5)])
        before = ours(links)
        links.add_bridge(names.tap_device("t1-", VM, "2"), "02:00:00:00:00:02")  # the name is taken
        links.configure(names.tap_device("t1-", VM, "2"), ifalias="somebody's")
        with pytest.raises(ApiError, match="CANNOT_PLUG_VIF") as refused:
            devices.plug([vif(5), vif(0), vif(1, bridge="new"), vif(2)])
        assert refused.value.params[0] == f"{VM}/2"
        assert "somebody's" in refused.value.params[1]
        assert [link for link in ours(links) if link.mark != "somebody's"] == before

    await links.run(check)


async def test_a_network_whose_name_belongs_to_another_device_is_refused(links: Links, devices: Devices) -> None:
    def check() -> None:
        links.add_tap("t1-xenbr0")
        with pytest.raises(ApiError, match="NETWORK_INCOMPATIBLE_WITH_BRIDGE"):
            devices.plug([vif()])
        assert devices.taps() == []

    await links.run(check)


async def test_what_the_kernel_refuses_is_said_with_its_reason(links: Links, devices: Devices) -> None:
    def check() -> None:
        with pytest.raises(ApiError, match="HOST_CANNOT_ATTACH_NETWORK") as refused:
            devices.plug([vif(mtu=99999999)])
        assert refused.value.params[:2] == [HOST, "xenbr0"]
        assert refused.value.params[2]
        assert ours(links) == []

    await links.run(check)


async def test_unplugging_removes_the_taps_of_one_vm(links: Links, devices: Devices) -> None:
    def check() -> None:
        devices.plug([vif(0), vif(1), vif(2), vif(0, vm=OTHER)])
        devices.unplug(VM, ["1"])
        assert {(tap.vm, tap.device) for tap in devices.taps()} == {(VM, "0"), (VM, "2"), (OTHER, "0")}
        for _ in range(2):
            devices.unplug(VM, [])
        assert [(tap.vm, tap.device) for tap in devices.taps()] == [(OTHER, "0")]

    await links.run(check)


async def test_a_bridge_goes_when_its_last_port_has_gone(links: Links, devices: Devices) -> None:
    def check() -> None:
        devices.plug([vif()])
        assert not devices.bridge_down("xenbr0")
        devices.unplug(VM, [])
        assert devices.bridge_down("xenbr0")
        assert devices.bridge_down("xenbr0")
        assert ours(links) == []

    await links.run(check)


async def test_an_administrator_s_bridge_is_used_and_left_alone(links: Links) -> None:
    def check() -> None:
        links.add_bridge("br0", "02:00:00:00:00:09")
        links.configure("br0", state="up", mtu=1450)
        plain = Devices(links, "", HOST)
        [backend] = plain.plug([vif(bridge="br0")])
        plain.unplug(VM, [])
        assert links.find(backend.name) is None
        assert not plain.bridge_down("br0")
        assert cleanup("", links) == []
        kept = links.find("br0")
        assert kept is not None
        assert (kept.mtu, kept.mark) == (1450, "")

    await links.run(check)


async def test_clean_up_removes_one_prefix_and_nothing_else(links: Links, devices: Devices) -> None:
    def check() -> None:
        other = Devices(links, "t2-", HOST)
        devices.plug([vif(0), vif(1, bridge="a-network-with-a-long-name")])
        other.plug([vif(0, vm=OTHER)])
        links.add_tap("t1-unmarked")
        links.add_tap("tap0")
        removed = cleanup("t1-", links)
        assert len(removed) == 5
        assert {link.name for link in links.all() if link.kind} == {
            "tap0",
            "t2-xenbr0",
            names.tap_device("t2-", OTHER, "0"),
        }

    await links.run(check)


async def test_a_tap_is_in_use_while_a_process_has_it_open(links: Links, devices: Devices) -> None:
    def check() -> None:
        [backend] = devices.plug([vif()])
        assert [tap.open for tap in devices.taps()] == [False]
        file = os.open("/dev/net/tun", os.O_RDWR)
        try:
            # as QEMU does: TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
            fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", backend.name.encode(), 0x0002 | 0x1000 | 0x4000))
            assert [tap.open for tap in devices.taps()] == [True]
        finally:
            os.close(file)
        assert [tap.open for tap in devices.taps()] == [False]

    await links.run(check)


async def test_it_finds_out_whether_bridges_can_be_made(links: Links) -> None:
    def check() -> None:
        assert usable(links, "t1-", "1") == ""
        assert ours(links) == []

    await links.run(check)


async def test_without_privileges_they_cannot(links: Links) -> None:
    """The capabilities of the namespace's thread are dropped; the kernel's own answer is what counts."""

    def check() -> None:
        drop_capabilities()
        assert "Operation not permitted" in usable(links, "t1-", "1")
        with pytest.raises(LinkError):
            links.add_bridge("br0", "02:00:00:00:00:09")

    await links.run(check)


def ours(links: Links) -> list[Link]:
    return [link for link in links.all() if link.kind]
