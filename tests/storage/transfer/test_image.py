"""Images that are read from their files: what is found there is what QEMU reads, and all else is left to QEMU."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from pathlib import Path

import pytest

from services.storage.nbd.client import NbdClient
from services.storage.nbd.server import NbdServer
from services.storage.transfer.image import Image
from shared.contracts.storage import Backend
from tests.storage.support import MIB

SIZE = 40 * MIB + 1536


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


async def scribbled(image: Path, seed: int, writes: int = 60) -> None:
    """Data in any order, so that clusters lie in any order, and zeros among it."""
    choose = random.Random(seed)
    backend = Backend(dp="vbd/1", kind="file", path=str(image), format="qcow2", writable=True)
    async with await NbdServer.start(backend, image.parent) as server, await NbdClient.connect(server.address) as disk:
        for _ in range(writes):
            length = choose.choice((512, 70_000, MIB, 3 * MIB)) // 512 * 512
            offset = choose.randrange(0, (SIZE - length) // 512) * 512
            if choose.random() < 0.2:
                await disk.zero(offset, length)
            else:
                await disk.write(offset, choose.randbytes(length))
        await disk.flush()


async def found(image: Path, form: str = "qcow2") -> int:
    """How many of the parts of a disk are read from the file; all of those are as QEMU has them."""
    opened, count, choose = Image.open(str(image), form), 0, random.Random(3)
    assert opened is not None
    backend = Backend(dp="task/1", kind="file", path=str(image), format=form, writable=False)
    async with await NbdServer.start(backend, image.parent) as server, await NbdClient.connect(server.address) as disk:
        whole = [(at, min(MIB, SIZE - at)) for at in range(0, SIZE, MIB)]
        parts = [(choose.randrange(SIZE - MIB), choose.randrange(1, MIB)) for _ in range(60)]
        for offset, length in (*whole, *parts):
            data = opened.data(offset, length)
            if data is not None:
                assert data == await disk.read(offset, length)
                count += 1
    opened.close()
    return count


async def image_of(form: str, folder: Path) -> Path:
    image = folder / "image"
    match form:
        case "qcow2 without gaps":
            (folder / "raw").write_bytes(os.urandom(SIZE))
            qemu_img("convert", "-f", "raw", "-O", "qcow2", folder / "raw", image)
        case "small clusters":
            qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4096", image, str(SIZE))
            await scribbled(image, 1)
        case "compat 0.10":
            qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", image, str(SIZE))
            await scribbled(image, 2)
        case "with a snapshot of its own":
            qemu_img("create", "-f", "qcow2", image, str(SIZE))
            await scribbled(image, 3)
            qemu_img("snapshot", "-c", "one", image)
            await scribbled(image, 4, 20)
        case "on a base":
            qemu_img("create", "-f", "qcow2", folder / "base", str(SIZE))
            await scribbled(folder / "base", 5)
            qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", folder / "base", image)
            await scribbled(image, 6, 20)
        case _:
            qemu_img("create", "-f", "qcow2", image, str(SIZE))
            await scribbled(image, 7)
    return image


@pytest.mark.parametrize(
    "form",
    ["written to", "qcow2 without gaps", "small clusters", "compat 0.10", "with a snapshot of its own", "on a base"],
)
async def test_what_is_found_in_a_file_is_what_qemu_reads(tmp_path: Path, form: str) -> None:
    count = await found(await image_of(form, tmp_path))
    assert count == 101 if form == "qcow2 without gaps" else count > 0


async def test_a_raw_file_has_all_of_its_disk(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(os.urandom(SIZE))
    assert await found(tmp_path / "raw", "raw") == 101


async def test_compressed_clusters_are_left_to_qemu(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"text" * (SIZE // 4))
    await asyncio.to_thread(qemu_img, "convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "image")
    assert await found(tmp_path / "image") == 0


@pytest.mark.parametrize("option", ["extended_l2=on", "data_file=data,data_file_raw=on"])
def test_images_of_other_kinds_are_left_to_qemu(tmp_path: Path, option: str) -> None:
    option = option.replace("data_file=data", f"data_file={tmp_path}/data")
    qemu_img("create", "-f", "qcow2", "-o", option, tmp_path / "image", str(SIZE))
    assert Image.open(str(tmp_path / "image"), "qcow2") is None
    assert Image.open(str(tmp_path / "none"), "qcow2") is None
    assert Image.open(str(tmp_path / "image"), "vhd") is None


def test_a_file_that_is_cut_is_left_to_qemu(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(SIZE // 2))
    image = Image.open(str(tmp_path / "raw"), "raw")
    assert image is not None
    assert image.data(SIZE // 2 - 10, 20) is None
    image.close()
