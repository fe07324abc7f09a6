"""The methods that a plug-in need not have, each raising `Unimplemented`: the base of every plug-in's groups."""

from __future__ import annotations

from services.storage.plugins.interface import (
    Changed,
    Domain,
    Handle,
    Implementation,
    Probed,
    Range,
    SrStat,
    Unimplemented,
    Volume,
)
from shared.errors import ApiError


class SrSkeleton:
    async def probe(self, configuration: dict[str, str]) -> list[Probed]:
        raise Unimplemented("SR.probe")

    async def probe_on(self, host: str, configuration: dict[str, str], sm_config: dict[str, str]) -> list[Probed]:
        return await self.probe(configuration)

    async def create(self, uuid: str, configuration: dict[str, str], name: str, description: str) -> dict[str, str]:
        raise Unimplemented("SR.create")

    async def create_on(
        self, host: str, uuid: str, configuration: dict[str, str], name: str, description: str, size: int
    ) -> dict[str, str]:
        return await self.create(uuid, configuration, name, description)

    async def stat(self, sr: Handle) -> SrStat:
        raise Unimplemented("SR.stat")

    async def last_stat(self, sr: Handle) -> SrStat:
        return await self.stat(sr)

    async def lost(self, sr: Handle) -> ApiError | None:
        return None

    async def set_name(self, sr: Handle, name: str, description: str) -> None:
        raise Unimplemented("SR.set_name")


class VolumeSkeleton:
    async def introduce(self, sr: Handle, uuid: str, key: str, keys: dict[str, str]) -> Volume:
        """What a disk needs that is found by its name alone."""
        return await self.stat(sr, key)

    async def stat(self, sr: Handle, key: str) -> Volume:
        raise Unimplemented("Volume.stat")

    async def update(self, sr: Handle, key: str) -> Volume:
        return await self.stat(sr, key)

    async def describe(self, sr: Handle, key: str, name: str | None, description: str | None) -> None:
        raise Unimplemented("Volume.set_name")

    async def set(self, sr: Handle, key: str, keys: dict[str, str | None]) -> None:
        raise Unimplemented("Volume.set")

    async def revert(self, sr: Handle, snapshot: str, key: str) -> Volume:
        raise Unimplemented("Volume.revert")

    async def compose(self, sr: Handle, child: str, parent: str) -> None:
        raise Unimplemented("Volume.compose")

    async def similar_content(self, sr: Handle, key: str) -> list[Volume]:
        raise Unimplemented("Volume.similar_content")

    async def compare(self, sr: Handle, key: str, base: str) -> list[Range]:
        raise Unimplemented("Volume.compare")

    async def enable_cbt(self, sr: Handle, key: str) -> None:
        raise Unimplemented("Volume.enable_cbt")

    async def disable_cbt(self, sr: Handle, key: str) -> None:
        raise Unimplemented("Volume.disable_cbt")

    async def data_destroy(self, sr: Handle, key: str) -> None:
        raise Unimplemented("Volume.data_destroy")

    async def changed_blocks(self, sr: Handle, key: str, later: str) -> Changed:
        raise Unimplemented("Volume.list_changed_blocks")

    async def generate_config(self, sr: Handle, key: str) -> str:
        raise Unimplemented("Volume.generate_config")

    async def set_persistent(self, sr: Handle, key: str, persistent: bool) -> None:
        """Nothing is prepared: `epoch` does it all."""

    async def epoch(self, sr: Handle, key: str, vm: str, begin: bool, persistent: bool) -> None:
        raise Unimplemented("Volume.epoch")


class DatapathSkeleton:
    async def located(self, uri: str, domain: Domain, attached: Implementation) -> Implementation:
        """Activation changes nothing of where a disk is."""
        return attached
