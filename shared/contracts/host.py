"""What the API process of a host does on that host alone: its certificates, programs, clock, power, log.

Operations run on the coordinator; what belongs to one host goes there by these methods, also when that host is the
coordinator itself.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from shared.bus.contract import Empty, Method, Record, Replay


class Text(Record, frozen=True):
    text: str


class Flag(Record, frozen=True):
    value: bool


class Names(Record, frozen=True):
    names: list[str]


class Figures(Record, frozen=True):
    """Name to number, as text for people."""

    figures: dict[str, str]


# ---- devices


class PciDevice(Record, frozen=True):
    """`address`: 0000:00:02.0. Ids: four hexadecimal digits, "" for a subsystem that there is not. `driver`: or "".

    `physical`: address of the device that it is a virtual function of. `related`: of the other functions of its slot.
    `boots_display`: the machine's firmware draws on it.
    """

    address: str
    class_id: str
    vendor_id: str
    device_id: str
    class_name: str = ""
    vendor_name: str = ""
    device_name: str = ""
    subsystem_vendor_id: str = ""
    subsystem_vendor_name: str = ""
    subsystem_device_id: str = ""
    subsystem_device_name: str = ""
    driver: str = ""
    physical: str = ""
    related: list[str] = []
    boots_display: bool = False


class UsbDevice(Record, frozen=True):
    """`path`: bus and ports, 1-2.4. `version`: of USB, 2.00. `speed`: Mbit/s, -1 unknown."""

    path: str
    vendor_id: str
    product_id: str
    vendor_desc: str = ""
    product_desc: str = ""
    serial: str = ""
    version: str = ""
    description: str = ""
    speed: float = -1.0


class Devices(Record, frozen=True):
    pci: list[PciDevice] = []
    usb: list[UsbDevice] = []


# ---- certificates


class Server(StrEnum):
    """Which of a host's two certificates: the one for clients, or the one for the other hosts (SNI `pool`)."""

    HOST = "host"
    INTERNAL = "host_internal"


class ServerCertificates(Record, frozen=True):
    """PEM, without keys. `host`: the certificate and its chain."""

    host: str
    internal: str


class NewServerCertificate(Record, frozen=True):
    """PEM. `chain`: "" or the certificates that follow the host's own, each issued by the next."""

    certificate: str
    private_key: str
    chain: str = ""


class SelfSign(Record, frozen=True):
    kind: Server


class Trust(StrEnum):
    """Folders of what a host trusts: authorities, single certificates, revocation lists, the pool's own hosts."""

    CA = "ca"
    PINNED = "pinned"
    CRL = "crl"
    POOL = "pool"


FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.pem")
"""Names that such files may have."""


class TrustedFile(Record, frozen=True):
    """`name`: of the file, such as `ours.pem`. `pem`: its content."""

    kind: Trust
    name: str
    pem: str


class TrustedFiles(Record, frozen=True):
    """All of them."""

    files: list[TrustedFile]


# ---- programs


class PluginCall(Record, frozen=True):
    """`session`: for what the plug-in calls itself."""

    plugin: str
    function: str
    arguments: dict[str, str]
    session: str


class ExtensionCall(Record, frozen=True):
    """`request`, and the answer: XML-RPC texts."""

    name: str
    request: str


class Name(Record, frozen=True):
    name: str


# ---- the clock


class Clock(Record, frozen=True):
    """`time`: Unix time. `local`: as `YYYYMMDDThh:mm:ss` in the host's zone. `synchronized`: with a time server."""

    time: float
    local: str
    zone: str
    synchronized: bool


class NtpServers(Record, frozen=True):
    """Address of each time server in use to how it does."""

    status: dict[str, str]


class Ntp(Record, frozen=True):
    """`mode`: as `host.ntp_mode`. `servers`: for Custom."""

    mode: str
    servers: list[str] = []


class SetTime(Record, frozen=True):
    """Unix time."""

    time: float


# ---- the machine


class PowerOff(Record, frozen=True):
    reboot: bool


class Seconds(Record, frozen=True):
    seconds: int


SYSLOG_DESTINATION: Final = "syslog_destination"
"""Key of `host.logging`."""


class Syslog(Record, frozen=True):
    """`destination`: host name or address, with `:port` if it is not 514; "" for nowhere."""

    destination: str


class Post(Record, frozen=True):
    host: str
    port: int
    body: str


class Upload(Record, frozen=True):
    """`proxy`: URL, "" for none."""

    url: str
    proxy: str = ""


class PoolSecrets(Record, frozen=True):
    """All that count; the host sends the first."""

    secrets: list[str]


class CallTiming(Record, frozen=True):
    """Of one message. Seconds."""

    calls: int
    mean: float
    deviation: float


class CallTimings(Record, frozen=True):
    """Message to how long its calls took, since the process started."""

    timings: dict[str, CallTiming]


RESTART_DELAY: Final = 1
"""Seconds from an answer to the end of the process that gave it, in which it gets to the client."""

_A = "api"
NOT_PERMITTED = ("OPERATION_NOT_ALLOWED",)
"""What changes the machine itself answers so unless the service may (option `manage_host`)."""

SERVER_CERTIFICATES = Method(_A, "server_certificates", Empty, ServerCertificates, "The certificates that it shows.")
INSTALL_SERVER_CERTIFICATE = Method(
    _A,
    "install_server_certificate",
    NewServerCertificate,
    Empty,
    "Shows this certificate to clients from the next connection on.",
    errors=("SERVER_CERTIFICATE_INVALID",),
)
SELF_SIGN = Method(_A, "self_sign", SelfSign, ServerCertificates, "Makes one of its certificates anew.")
TRUSTED = Method(_A, "trusted", Empty, TrustedFiles, "What it trusts.")
SET_TRUSTED = Method(_A, "set_trusted", TrustedFiles, Empty, "Trusts these files and no others.")
VERIFY = Method(_A, "verify", Flag, Empty, "Checks the servers that it connects to from now on, or does not.")
HTTPS_ONLY = Method(_A, "https_only", Flag, Empty, "Closes or opens its port for plain HTTP.")

SET_POOL_SECRETS = Method(_A, "set_pool_secrets", PoolSecrets, Empty, "Knows the pool's hosts by these.")
POST = Method(
    _A,
    "post",
    Post,
    Text,
    "What a server outside answers over HTTPS.",
    timeout=120,
    replay=Replay.ONCE,
    errors=("TLS_CONNECTION_FAILED", "SSL_VERIFY_ERROR"),
)
UPLOAD_REPORT = Method(
    _A,
    "upload_report",
    Upload,
    Empty,
    "Sends the host's status report to a server outside.",
    timeout=3600,
    errors=("INVALID_VALUE", "SSL_VERIFY_ERROR", "SYSTEM_STATUS_RETRIEVAL_FAILED"),
)

CALL_PLUGIN = Method(
    _A,
    "call_plugin",
    PluginCall,
    Text,
    "Runs a plug-in.",
    timeout=86400,
    replay=Replay.ONCE,
    errors=("XENAPI_MISSING_PLUGIN", "XENAPI_PLUGIN_FAILURE"),
)
CALL_EXTENSION = Method(
    _A,
    "call_extension",
    ExtensionCall,
    Text,
    "Runs the program that carries out a method of this name.",
    timeout=86400,
    replay=Replay.ONCE,
    errors=("MESSAGE_METHOD_UNKNOWN", "INTERNAL_ERROR"),
)
HAS_EXTENSION = Method(_A, "has_extension", Name, Flag, "Whether there is a program for a method of this name.")

CLOCK = Method(_A, "clock", Empty, Clock, "What time it is there.")
TIME_ZONES = Method(_A, "time_zones", Empty, Names, "The zones that it knows.")
NTP_SERVERS = Method(_A, "ntp_servers", Empty, NtpServers, "Its time servers.")
SET_TIME_ZONE = Method(_A, "set_time_zone", Name, Empty, "Puts the machine into a time zone.", errors=NOT_PERMITTED)
SET_NTP = Method(_A, "set_ntp", Ntp, Empty, "Chooses the machine's time servers.", errors=NOT_PERMITTED)
SET_TIME = Method(_A, "set_time", SetTime, Empty, "Sets the machine's clock.", errors=NOT_PERMITTED)

POWER_OFF = Method(_A, "power_off", PowerOff, Empty, "Ends the machine in a moment.", errors=NOT_PERMITTED)
MANAGED = Method(_A, "managed", Empty, Empty, "Whether it may change the machine; raises.", errors=NOT_PERMITTED)
SET_HOST_NAME = Method(_A, "set_host_name", Name, Empty, "Names the machine.", errors=NOT_PERMITTED)
SSH = Method(_A, "ssh", Flag, Empty, "Starts or stops the machine's SSH server.", errors=NOT_PERMITTED)
SHELL_TIMEOUT = Method(
    _A, "shell_timeout", Seconds, Empty, "After how long idle shells log out; 0 for never.", errors=NOT_PERMITTED
)
MAX_CSTATE = Method(_A, "max_cstate", Text, Empty, "How deep idle CPUs may sleep.", errors=NOT_PERMITTED)
KERNEL_LOG = Method(_A, "kernel_log", Empty, Text, "What the kernel has said.", errors=NOT_PERMITTED)

SYSLOG = Method(_A, "syslog", Syslog, Empty, "Sends its log lines to another machine, too.")
RESTART = Method(_A, "restart", Seconds, Empty, "The process ends after so long and is started again.")
SHUT_DOWN = Method(_A, "shut_down", Empty, Empty, "The process ends in a second and is not started again.")
DEVICES = Method(_A, "devices", Empty, Devices, "Its PCI and USB devices, if the machine is its own.")
GC_STATS = Method(_A, "gc_stats", Empty, Figures, "What its garbage collector has done, and its memory.")
GC_COMPACT = Method(_A, "gc_compact", Empty, Empty, "Collects its garbage now; the process stands still meanwhile.")
TASKS = Method(_A, "tasks", Empty, Text, "What the process is doing, for developers.")
TIMINGS = Method(_A, "timings", Empty, CallTimings, "How long its calls took.")
