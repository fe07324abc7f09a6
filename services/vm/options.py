"""What the `[options]` of the service's configuration may hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from shared.config import Config, ConfigError, HostConfig

BackendChoice = Literal["auto", "qemu", "simulator"]
AccelChoice = Literal["auto", "kvm", "tcg"]

SOCKET_PATH_LIMIT = 107
"""Bytes that a Unix socket's path may have (`sun_path` of unix(7), without its zero)."""
_LONGEST_NAME = "/00000000/1000000000.serial"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`backend`: auto is qemu where its program is installed. `accel`: auto is kvm where it really runs a guest.

    `guest_dir`: where kernels of direct-boot VMs are (default: `.cache/guest` of the project). `run_dir`: for sockets
    (default: in the state folder if its path is short, else `/run/xapi-<hash>`). `kvm_verdict`: file that keeps whether
    KVM works until the next boot; hosts on one machine may share it (default: in the state folder).

    `minimum_reboot_delay`, `reboot_pause` (s): a guest that reboots itself sooner than the first after its start waits
    for the second; one that crashes so soon stays down. Simulated guests do not wait.

    `unplug_timeout` (s): how long a guest may take to let go of a device.
    """

    backend: BackendChoice = "auto"
    accel: AccelChoice = "auto"
    guest_dir: str = ""
    run_dir: str = ""
    qemu_binary: str = "qemu-system-x86_64"
    kvm_verdict: str = ""
    minimum_reboot_delay: float = 120.0
    reboot_pause: float = 15.0
    unplug_timeout: float = 60.0
    simulated_cpus: int = 16
    simulated_memory: int = 256 * 2**30


def guest_folder(options: Options) -> Path:
    return Path(options.guest_dir or Path(__file__).parents[2] / ".cache" / "guest").absolute()


def run_folder(options: Options, config: Config) -> Path:
    """The folder of all sockets, short enough for their paths. Raises `ConfigError`."""
    if options.run_dir:
        folder = Path(options.run_dir).absolute()
        if not _fits(folder):
            raise ConfigError(f"run_dir {folder} is too long for the paths of Unix sockets")
        return folder
    state = config.state.absolute()
    name = f"xapi-{_digest(str(state))}"
    candidates = [state / "run", Path("/run") / name]
    if os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(os.environ["XDG_RUNTIME_DIR"]) / name)
    candidates.append(Path("/tmp") / f"{name}-{os.geteuid()}")
    for folder in candidates:
        if _fits(folder) and _usable(folder):
            return folder
    raise ConfigError("no folder for sockets: set run_dir to one that is short and writable")


def host_folder_name(host: HostConfig) -> str:
    return _digest(host.uuid)


def private_folder(folder: Path) -> Path:
    """Makes the folder; what is in it is nobody else's. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_LONGEST_NAME) <= SOCKET_PATH_LIMIT


def _usable(folder: Path) -> bool:
    try:
        private_folder(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
