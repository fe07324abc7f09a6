from __future__ import annotations

from services.vm.qemu.disks.hotplug import Hotplug
from services.vm.qemu.disks.images import Images
from services.vm.qemu.disks.mirrors import Mirrors
from services.vm.qemu.disks.pauses import Pauses


class QemuDisks(Hotplug, Images, Pauses, Mirrors):
    """`services.vm.disks.Disks` of domains that are QEMU processes."""
