"""Disks that come and go by other ways than a plug-in: what cannot be done to them."""

from __future__ import annotations

from services.storage.plugins.interface import Handle, NewVolume, Report, Unimplemented, Volume
from services.storage.plugins.skeleton import VolumeSkeleton


class FixedVolumes(VolumeSkeleton):
    async def create(self, sr: Handle, new: NewVolume, size: int) -> Volume:
        raise Unimplemented("Volume.create")

    async def clone(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        raise Unimplemented("Volume.clone")

    async def snapshot(self, sr: Handle, key: str, new: NewVolume) -> Volume:
        raise Unimplemented("Volume.snapshot")

    async def copy(self, sr: Handle, key: str, new: NewVolume, report: Report) -> Volume:
        raise Unimplemented("Volume.copy")

    async def destroy(self, sr: Handle, key: str) -> None:
        raise Unimplemented("Volume.destroy")

    async def resize(self, sr: Handle, key: str, size: int) -> Volume:
        raise Unimplemented("Volume.resize")
