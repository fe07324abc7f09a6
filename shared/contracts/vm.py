"""VM lifecycle on one host (the xenopsd seam).

A request carries all that the host needs: the VM with its devices. Several hosts may be owned by one process.
"""

from __future__ import annotations

from enum import StrEnum

from shared.bus.contract import Empty, Method, Record, Topic


class PowerState(StrEnum):
    """As in the API."""

    HALTED = "Halted"
    PAUSED = "Paused"
    RUNNING = "Running"
    SUSPENDED = "Suspended"


class VbdSpec(Record, frozen=True):
    """`device`: position, decimal text. `sr`, `location`: the disk, both "" when the drive is empty. `mode`: RO | RW.

    `type`: CD | Disk | Floppy.
    """

    ref: str
    uuid: str
    device: str
    mode: str
    type: str
    bootable: bool
    sr: str = ""
    location: str = ""
    vdi: str = ""
    unpluggable: bool = True
    qos: dict[str, str] = {}
    other_config: dict[str, str] = {}


class VifSpec(Record, frozen=True):
    ref: str
    uuid: str
    device: str
    mac: str
    bridge: str
    mtu: int = 1500
    locking_mode: str = "unlocked"
    other_config: dict[str, str] = {}


class VmSpec(Record, frozen=True):
    """Memory in bytes. `domain_type`: hvm | pv | pv_in_pvh | pvh. `actions_after_*`: as in the API."""

    ref: str
    uuid: str
    name_label: str
    domain_type: str
    memory_static_max: int
    memory_dynamic_min: int
    memory_dynamic_max: int
    vcpus_max: int
    vcpus_at_startup: int
    actions_after_shutdown: str = "destroy"
    actions_after_reboot: str = "restart"
    actions_after_crash: str = "destroy"
    hvm_boot_params: dict[str, str] = {}
    pv_bootloader: str = ""
    pv_kernel: str = ""
    pv_ramdisk: str = ""
    pv_args: str = ""
    vcpus_params: dict[str, str] = {}
    platform: dict[str, str] = {}
    xenstore_data: dict[str, str] = {}
    other_config: dict[str, str] = {}
    vbds: list[VbdSpec] = []
    vifs: list[VifSpec] = []


class ConsoleInfo(Record, frozen=True):
    """`protocol`: vt100 | rfb."""

    protocol: str


class VmState(Record, frozen=True):
    """What the backend knows. `domid`: -1 when halted, else new at each start or reboot. `start_time`: Unix time.

    `vbds`, `vifs`: references of the devices that are attached. `disks`: by VBD, the reference of its disk. `empty`:
    references of drives without a medium. `stalled`: reference of the VBD without whose disk having room again a paused
    VM does not go on, "" if it could. `seq`: rises with every change of this VM on this host.
    """

    uuid: str
    ref: str
    power_state: PowerState
    domid: int = -1
    start_time: float = 0.0
    memory_actual: int = 0
    vcpus: int = 0
    domain_type: str = "unspecified"
    consoles: list[ConsoleInfo] = []
    vbds: list[str] = []
    disks: dict[str, str] = {}
    empty: list[str] = []
    vifs: list[str] = []
    pid: int = 0
    accel: str = ""
    stalled: str = ""
    seq: int = 0


class VmStart(Record, frozen=True):
    vm: VmSpec
    paused: bool = False
    force: bool = False


class VmShutdown(Record, frozen=True):
    """`clean`: ask the guest and wait up to `timeout` seconds; otherwise pull the plug."""

    vm: str
    clean: bool = False
    timeout: float = 1200.0


class VmReboot(Record, frozen=True):
    """The VM gets the configuration given, as at a start."""

    vm: VmSpec
    clean: bool = False
    timeout: float = 1200.0


class VmId(Record, frozen=True):
    vm: str
    """uuid"""


class VmList(Record, frozen=True):
    vms: list[VmState]


class ConsoleRequest(Record, frozen=True):
    vm: str
    protocol: str


class ConsoleEndpoint(Record, frozen=True):
    """A Unix socket on that host which carries the console's bytes both ways; the first bytes replay recent output."""

    path: str


class HostCapabilities(Record, frozen=True):
    """`backend`: qemu | simulator. `accel`: kvm | tcg | simulated. Memory in bytes."""

    backend: str
    accel: str
    version: str
    cpu_count: int
    cpu_model: str
    cpu_vendor: str
    cpu_speed: int
    cpu_flags: str
    memory_total: int
    memory_overhead: int
    capabilities: list[str]


class Cause(StrEnum):
    """Why a VM's state changed."""

    REQUEST = "request"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_REBOOT = "guest-reboot"
    GUEST_CRASH = "guest-crash"
    PROCESS_DIED = "process-died"
    DISK_FULL = "disk-full"
    DISK_ROOM = "disk-room"
    DISK_ERROR = "disk-error"


class VmStateChanged(Record, frozen=True):
    """`vbd`: reference, with DISK_ERROR: whose disk has failed to read or write something. The VM goes on."""

    host: str
    state: VmState
    cause: Cause
    vbd: str = ""


_V = "vm"
_STATE = ("VM_BAD_POWER_STATE",)

CAPABILITIES = Method(_V, "capabilities", Empty, HostCapabilities, "What this host can run.")
START = Method(
    _V,
    "start",
    VmStart,
    VmState,
    "Builds and starts a VM; answers when it runs (or is paused).",
    timeout=300,
    errors=(*_STATE, "VM_HVM_REQUIRED", "FAILED_TO_START_EMULATOR", "HOST_NOT_ENOUGH_FREE_MEMORY", "BOOTLOADER_FAILED"),
)
SHUTDOWN = Method(
    _V,
    "shutdown",
    VmShutdown,
    VmState,
    "Stops a VM and gives back its devices.",
    timeout=1300,
    errors=(*_STATE, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", "VM_SHUTDOWN_TIMEOUT"),
)
REBOOT = Method(
    _V, "reboot", VmReboot, VmState, "Stops and starts a VM.", timeout=1300, errors=(*START.errors, *SHUTDOWN.errors)
)
PAUSE = Method(_V, "pause", VmId, VmState, "Stops a VM's CPUs.", errors=_STATE)
UNPAUSE = Method(_V, "unpause", VmId, VmState, "Lets a VM's CPUs run.", errors=_STATE)
QUERY = Method(_V, "query", VmId, VmState, "One VM's state; Halted when the host does not have it.")
LIST = Method(_V, "list", Empty, VmList, "Every VM that runs or is paused on this host.")
CONSOLE = Method(
    _V,
    "console",
    ConsoleRequest,
    ConsoleEndpoint,
    "Where a console of a running VM is.",
    errors=("VM_BAD_POWER_STATE",),
)

STATE: Topic[VmStateChanged] = Topic(
    "vm.{host}.state", VmStateChanged, "A VM's state changed on that host, for any cause."
)
