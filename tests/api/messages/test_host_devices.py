"""The machine's devices: what sysfs says, and the rows that come of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from services.api.decisions import host_devices
from services.api.host_side.devices import found, read
from shared.contracts.db import Update
from shared.contracts.host import Devices, PciDevice, UsbDevice
from tests.api.harness import Client, Pool

PCI_IDS = """\
# a comment
10de  NVIDIA Corporation
\t1111  Some GPU
\t\t1458 2222  Board of somebody
8086  Intel Corporation
\t1533  I210
ffff  Illegal
C 03  Display controller
\t00  VGA compatible controller
\t\t00  VGA controller
C 02  Network controller
"""
USB_IDS = """\
03f0  HP, Inc
\t1d4d  Printer
AT 0100  USB Streaming
\t1d4d  nonsense
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists = folder / "hwdata"
        self.lists.mkdir()
        (self.lists / "pci.ids").write_text(PCI_IDS)
        (self.lists / "usb.ids").write_text(USB_IDS)

    def read(self) -> Devices:
        return read(self.folder, (self.folder / "absent", self.lists))

    def pci(self, address: str, kind: str, vendor: str, device: str, driver: str = "", **files: str) -> Path:
        path = self._device("pci", address, {"class": f"0x{kind}", "vendor": f"0x{vendor}", "device": f"0x{device}"})
        for name, text in files.items():
            (path / name).write_text(text + "\n")
        if driver:
            target = self.folder / "bus/pci/drivers" / driver
            target.mkdir(parents=True, exist_ok=True)
            (path / "driver").symlink_to(target)
        return path

    def usb(self, name: str, **files: str) -> Path:
        return self._device("usb", name, files)

    def _device(self, bus: str, name: str, files: dict[str, str]) -> Path:
        path = self.folder / "bus" / bus / "devices" / name
        path.mkdir(parents=True)
        for file, text in files.items():
            (path / file).write_text(text + "\n")
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_buses_has_no_devices(machine: Machine) -> None:
    assert machine.read() == Devices()


def test_pci_devices_are_named_by_the_distributions_list(machine: Machine) -> None:
    subsystem = {"subsystem_vendor": "0x1458", "subsystem_device": "0x2222"}
    machine.pci("0000:01:00.0", "030000", "10de", "1111", "nouveau", boot_vga="1", **subsystem)
    machine.pci("0000:01:00.1", "040300", "10de", "9999")
    machine.pci("0000:00:1f.0", "060100", "8086", "0001")
    gpu, sound = machine.read().pci
    assert (gpu.address, gpu.class_id, gpu.class_name) == ("0000:01:00.0", "0300", "VGA compatible controller")
    assert (gpu.vendor_name, gpu.device_name) == ("NVIDIA Corporation", "Some GPU")
    assert (gpu.subsystem_vendor_name, gpu.subsystem_device_name) == ("1458", "Board of somebody")
    assert (gpu.driver, gpu.boots_display, gpu.related) == ("nouveau", True, ["0000:01:00.1"])
    assert (sound.device_name, sound.driver, sound.physical) == ("9999", "", "")


def test_virtual_functions_name_their_card(machine: Machine) -> None:
    card = machine.pci("0000:02:00.0", "020000", "8086", "1533")
    function = machine.pci("0000:02:10.0", "020000", "8086", "1533")
    (function / "physfn").symlink_to(card)
    assert [device.physical for device in machine.read().pci] == ["", "0000:02:00.0"]


def test_usb_devices_are_those_that_are_no_hubs(machine: Machine) -> None:
    ids = {"idVendor": "03f0", "idProduct": "1d4d"}
    machine.usb("1-2", **ids, bDeviceClass="00", serial="X1", version="2.00", speed="480")
    machine.usb("1-2:1.0", bInterfaceClass="07")
    machine.usb("usb1", idVendor="1d6b", idProduct="0002", bDeviceClass="09")
    machine.usb("1-3", idVendor="abcd", idProduct="0001", bDeviceClass="ff", manufacturer="Maker", product="Thing")
    printer, thing = machine.read().usb
    assert (printer.path, printer.vendor_desc, printer.product_desc) == ("1-2", "HP, Inc", "Printer")
    assert (printer.serial, printer.version, printer.speed) == ("X1", "2.00", 480.0)
    assert printer.description == "HP, Inc_Printer_X1"
    assert (thing.vendor_desc, thing.product_desc, thing.speed) == ("Maker", "Thing", -1.0)


def test_without_lists_devices_are_called_by_their_numbers(machine: Machine, tmp_path: Path) -> None:
    machine.pci("0000:01:00.0", "030000", "10de", "1111")
    [gpu] = read(tmp_path, ()).pci
    assert (gpu.vendor_name, gpu.device_name, gpu.class_name) == ("10de", "1111", "0300")


async def test_a_host_that_shares_its_machine_has_none() -> None:
    assert await found(owned=False) == Devices()


# ---- rows

GPU = PciDevice(
    address="0000:01:00.0", class_id="0300", vendor_id="10de", device_id="1111", vendor_name="V", device_name="D"
)
CARD = PciDevice(address="0000:02:00.0", class_id="0200", vendor_id="8086", device_id="1533")
FUNCTION = PciDevice(
    address="0000:02:10.0", class_id="0200", vendor_id="8086", device_id="1533", physical="0000:02:00.0"
)
STICK = UsbDevice(path="1-2", vendor_id="03f0", product_id="1d4d", speed=480.0)


async def write(pool: Pool, number: int, *pci: PciDevice, usb: tuple[UsbDevice, ...] = ()) -> int:
    """How many changes it took."""
    changes = host_devices.rows(pool.store, pool.hosts[number].uuid, Devices(pci=list(pci), usb=list(usb)))
    await pool.write(*changes)
    return len(changes)


async def test_devices_become_rows_once(pool: Pool) -> None:
    assert await write(pool, 0, GPU, CARD, FUNCTION, usb=(STICK,))
    assert await write(pool, 0, GPU, CARD, FUNCTION, usb=(STICK,)) == 0
    host = pool.host_ref(0)
    assert len(pool.row("host", host)["PCIs"]) == 3
    [card] = [row for row in pool.store.rows("PCI").values() if row["pci_id"] == CARD.address]
    [function] = card["virtual_functions"]
    assert pool.row("PCI", function)["pci_id"] == FUNCTION.address
    [pusb] = pool.row("host", host)["PUSBs"]
    group = pool.row("PUSB", pusb)["USB_group"]
    assert pool.row("USB_group", group)["name_label"] == "Group of 03f0 1d4d USBs"


async def test_gpus_of_one_model_share_a_group(pool: Pool, client: Client) -> None:
    await write(pool, 0, GPU)
    await write(pool, 1, GPU)
    [(group, row)] = pool.store.rows("GPU_group").items()
    assert (row["name_label"], row["GPU_types"], len(row["PGPUs"])) == ("Group of V D GPUs", ["10de/1111"], 2)
    [kind] = row["enabled_VGPU_types"]
    assert pool.row("VGPU_type", kind)["implementation"] == "passthrough"
    assert await client.call("GPU_group.get_remaining_capacity", group, kind) == 2
    vm = await pool.vm(client)
    await client.call("VGPU.create", vm, group)
    assert await client.refusal("VM.start", vm, False, False) == ["NOT_IMPLEMENTED", "VM.start of a VM with a VGPU"]


async def test_the_display_of_the_machine_is_given_to_nobody(pool: Pool) -> None:
    await write(pool, 0, msgspec.structs.replace(GPU, boots_display=True, driver="vfio-pci"))
    [row] = pool.store.rows("PGPU").values()
    assert (row["is_system_display_device"], row["supported_VGPU_types"]) == (True, [])
    assert row["dom0_access"] == "disabled"


async def test_a_device_is_the_hosts_until_it_is_left_to_vms(pool: Pool, client: Client) -> None:
    await write(pool, 0, CARD, msgspec.structs.replace(GPU, driver="vfio-pci"))
    answers = {
        row["pci_id"]: await client.call("PCI.get_dom0_access_status", ref)
        for ref, row in list(pool.store.rows("PCI").items())
    }
    assert answers == {CARD.address: "enabled", GPU.address: "disabled"}
    [gpu] = pool.store.rows("PGPU")
    assert await client.refusal("PGPU.enable_dom0_access", gpu) == ["NOT_IMPLEMENTED", "PGPU.enable_dom0_access"]


async def test_what_is_gone_goes(pool: Pool, client: Client) -> None:
    await write(pool, 0, GPU, CARD, usb=(STICK,))
    await write(pool, 1, GPU)
    [group] = pool.store.rows("USB_group")
    await client.call("VUSB.create", await pool.vm(client), group, {})
    await write(pool, 0, CARD)
    assert len(pool.store.rows("PCI")) == 2
    assert len(pool.store.rows("PGPU")) == 1
    for cls in ("PUSB", "USB_group", "VUSB"):
        assert not pool.store.rows(cls)


async def test_a_vm_starts_only_where_its_usb_device_is(pool: Pool, client: Client) -> None:
    await write(pool, 1, usb=(STICK,))
    [group] = pool.store.rows("USB_group")
    vm = await pool.vm(client)
    await client.call("VUSB.create", vm, group, {})
    assert await client.call("VM.get_possible_hosts", vm) == [pool.host_ref(1)]
    assert (await client.refusal("VM.assert_can_boot_here", vm, pool.host_ref(0)))[0] == "OPERATION_NOT_ALLOWED"
    assert await client.refusal("VM.start", vm, False, False) == ["NOT_IMPLEMENTED", "VM.start of a VM with a VUSB"]


async def test_a_scan_asks_the_host(pool: Pool, client: Client) -> None:
    await write(pool, 0, usb=(STICK,))
    await client.call("PUSB.scan", pool.host_ref(0))
    assert not pool.store.rows("PUSB")  # the machine is not the host's own
    await pool.write(
        Update(cls="host_metrics", ref=pool.row("host", pool.host_ref(1))["metrics"], fields={"live": False})
    )
    assert await client.refusal("PUSB.scan", pool.host_ref(1)) == ["HOST_OFFLINE", pool.host_ref(1)]
