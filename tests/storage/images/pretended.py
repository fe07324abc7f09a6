"""A hypervisor that is only a list of open images: what QEMU does to files, without QEMU; quick enough to try often."""

from __future__ import annotations

from pathlib import Path

from shared.contracts.storage import Backend
from shared.contracts.vm_disks import Chain
from shared.errors import ApiError
from tests.storage.images.dying import Death
from tests.storage.images.world import run, write_image


class Pretended:
    """`images`: paths, the one that is written to first; empty when nothing is open. `death`: of who calls."""

    def __init__(self, dp: str) -> None:
        self.dp = dp
        self.images: list[str] = []
        self.paused = ""
        self.death: Death | None = None

    def open(self, folder: Path, names: list[str]) -> None:
        self.images = [str(folder / f"{name}.qcow2") for name in names]

    async def write(self, writes: list[tuple[int, int, int]]) -> None:
        await write_image(self.images[0], writes)

    def _called(self, dp: str) -> None:
        if self.death is not None:
            self.death.effect()
        if dp != self.dp or not (self.images or self.paused):
            raise ApiError("DEVICE_NOT_ATTACHED", dp)

    async def chain(self, host: str, dp: str) -> Chain:
        return Chain(images=self.images if dp == self.dp else [])

    async def snapshot(self, host: str, dp: str, overlay: str) -> None:
        self._called(dp)
        self.images.insert(0, overlay)
        self._answered()

    async def commit(self, host: str, dp: str, top: str, base: str, backing: str = "") -> None:
        """As QEMU: the data, then the name in the header above."""
        self._called(dp)
        at = self.images.index(top)
        assert self.images[at + 1] == base
        assert at > 0
        await run("qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", Path(base).name, top)
        await run("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, self.images[at - 1])
        self.images.remove(top)
        self._answered()

    async def resize(self, host: str, dp: str, size: int) -> None:
        self._called(dp)
        await run("qemu-img", "resize", "-q", "-f", "qcow2", self.images[0], str(size))
        self._answered()

    async def pause(self, host: str, dp: str) -> None:
        self._called(dp)
        self.paused, self.images = self.images[0], []
        self._answered()

    async def resume(self, host: str, dp: str, backend: Backend | None = None) -> None:
        self._called(dp)
        if self.paused:
            at = Path(self.paused)
            self.images = await _chain(at)
            self.paused = ""
        self._answered()

    def _answered(self) -> None:
        """The caller may have died before it hears of it."""
        if self.death is not None:
            self.death.effect()


async def _chain(top: Path) -> list[str]:
    lines = (await run("qemu-img", "info", "--backing-chain", str(top))).splitlines()
    return [line.removeprefix("image: ") for line in lines if line.startswith("image: ")]
