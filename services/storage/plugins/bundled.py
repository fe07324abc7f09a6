"""The SR types that come with the service."""

from __future__ import annotations

from pathlib import Path

from services.storage.journal import Journal
from services.storage.live import Live
from services.storage.options import StorageOptions
from services.storage.plugins.dummy import DummyPlugin
from services.storage.plugins.ext import ExtMedium
from services.storage.plugins.file.coalesce import Audience, Coalescing
from services.storage.plugins.file.plugin import FilePlugin
from services.storage.plugins.file.qemu_img import QemuImg
from services.storage.plugins.interface import Plugin
from services.storage.plugins.iso import IsoPlugin
from services.storage.plugins.lvm import LvmPlugin
from services.storage.plugins.memory import MemoryMedium
from services.storage.plugins.mounted import Medium, MountedPlugin
from services.storage.plugins.mounted_point import sweep
from services.storage.plugins.nfs import NfsMedium
from services.storage.plugins.smb import SmbMedium
from services.storage.plugins.udev import UdevPlugin


def bundled(
    options: StorageOptions, state_dir: Path, live: Live, audience: Audience | None = None
) -> dict[str, Plugin]:
    """By SR type. `live`: how images are changed that a hypervisor has open. `audience`: hears when they are merged."""
    images = QemuImg(options.qemu_img, options.qemu_img_timeout)
    coalescing = Coalescing(
        enabled=options.coalesce,
        delay=options.coalesce_delay,
        interval=options.coalesce_interval,
        rate=options.coalesce_rate,
    )
    mount_points = state_dir / "sr-mount"
    sweep(mount_points)

    def files() -> FilePlugin:
        return FilePlugin(images, options.lock_timeout, live, coalescing, audience)

    media: list[Medium] = [ExtMedium(mount_points / "visit"), NfsMedium(), SmbMedium(), MemoryMedium(mount_points)]
    mounted = [MountedPlugin(medium, files, mount_points) for medium in media]
    return {
        "file": files(),
        "dummy": DummyPlugin(Journal(state_dir / "dummy")),
        "lvm": LvmPlugin(),
        "iso": IsoPlugin(mount_points),
        "udev": UdevPlugin(),
        **{plugin.medium.kind.type: plugin for plugin in mounted},
    }
