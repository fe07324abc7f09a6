from __future__ import annotations

from services.vm.qemu.disks.hotplug import Hotplug
from services.vm.qemu.disks.images import Images
from services.vm.qemu.disks.mirrors import Mirrors
from services.vm.qemu.disks.pauses import Pauses
from services.vm.qemu.disks.stalls import Stalls


class QemuDisks(Hotplug, Images, Pauses, Mirrors, Stalls):
    """`services.vm.disks.Disks` of domains that are QEMU processes."""
