"""Host networking: bridges for networks, taps for VIFs."""

from __future__ import annotations

from shared.bus.contract import Absent, Empty, Method, Record


class Bridge(Record, frozen=True):
    """`bridge`: as in `network.bridge`. The Linux device may have another name (hosts that share a kernel)."""

    bridge: str
    mtu: int = 1500


class VifPlug(Record, frozen=True):
    """`vm`: uuid; `device`: the VIF's number; `mac`: six hex pairs. `live`: false when the VM is simulated."""

    vm: str
    device: str
    mac: str
    bridge: str
    mtu: int = 1500


class VifsPlug(Record, frozen=True):
    """Several VIFs in one message; all or none."""

    vifs: list[VifPlug]


class VifBackend(Record, frozen=True):
    """`kind`: "tap" (device `name` exists and is on the bridge) | "user" (QEMU's own NAT) | "none" (simulated)."""

    vm: str
    device: str
    kind: str
    name: str = ""


class VifBackends(Record, frozen=True):
    vifs: list[VifBackend]


class VifsUnplug(Record, frozen=True):
    """Removes the taps of these devices of a VM; all of its devices when the list is empty."""

    vm: str
    devices: list[str] = []


class Interface(Record, frozen=True):
    """One network interface of the host. `carrier`: has link. `addresses`: in CIDR form."""

    device: str
    mac: str
    mtu: int
    carrier: bool
    speed: int = 0
    addresses: list[str] = []


class Interfaces(Record, frozen=True):
    interfaces: list[Interface]


_N = "network"
SCAN = Method(_N, "scan", Empty, Interfaces, "The host's interfaces.")
BRIDGE_UP = Method(
    _N,
    "bridge_up",
    Bridge,
    Empty,
    "Makes sure a bridge exists and is up.",
    errors=("NETWORK_INCOMPATIBLE_WITH_BRIDGE",),
)
BRIDGE_DOWN = Method(_N, "bridge_down", Bridge, Empty, "Removes a bridge that has no more ports.")
VIFS_PLUG = Method(
    _N,
    "vifs_plug",
    VifsPlug,
    VifBackends,
    "Makes the taps of VIFs and puts them on their bridges.",
    errors=("CANNOT_PLUG_VIF", "HOST_CANNOT_ATTACH_NETWORK"),
)
VIFS_UNPLUG = Method(_N, "vifs_unplug", VifsUnplug, Empty, "Removes taps.", absent=Absent.WAIT)
