"""The redo log on a real block device: a loop device over a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.db.redo.interface import RedoLogError
from shared.redo_blocks.layout import UPSTREAM
from tests.db.redo.block import original
from tests.db.redo.block.harness import Primary, network, recovered_rows, write

Attach = Callable[..., Path]
LOSETUP = shutil.which("losetup")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(LOSETUP is None, reason="needs losetup"),
]


def losetup(*arguments: str) -> str:
    done = subprocess.run(["losetup", *arguments], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        pytest.skip(f"no loop device can be attached here: {done.stderr.strip()}")
    return done.stdout.strip()


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Attaches a file of so many bytes (with holes), and detaches all in the end."""
    attached: list[str] = []

    def attach(size: int, *options: str) -> Path:
        backing = tmp_path / f"backing{len(attached)}"
        with backing.open("ab") as file:
            file.truncate(size)
        attached.append(losetup("--find", "--show", *options, str(backing)))
        return Path(attached[-1])

    yield attach
    for device in attached:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=20)


SIZE = (UPSTREAM.size + 4095) // 4096 * 4096


def test_commits_and_checkpoints_on_a_device_are_what_the_original_reads(attach: Attach) -> None:
    device = attach(SIZE)
    primary = Primary(device, geometry=UPSTREAM)
    primary.commit(network("n"), write("n", name_label="x" * 3000))
    primary.checkpoint()
    rows = primary.commit(write("n", name_label="last"), network("m"))
    primary.log.close()
    assert recovered_rows(device, UPSTREAM) == rows
    found = original.read(device.read_bytes())
    assert found is not None
    assert not found.error
    assert found.rows == rows


def test_a_second_process_cannot_have_the_device(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.db.redo.block.log.LOCK_WAIT", 0.05)
    device = attach(SIZE)
    primary = Primary(device, geometry=UPSTREAM)
    with pytest.raises(RedoLogError, match="another process uses it"):
        Primary(device, geometry=UPSTREAM)
    primary.log.close()


def test_a_device_that_is_too_small_is_refused(attach: Attach) -> None:
    device = attach(UPSTREAM.size // 512 * 512)
    with pytest.raises(RedoLogError, match=f"has {UPSTREAM.size // 512 * 512} bytes, a redo log needs 125829138"):
        Primary(device, geometry=UPSTREAM)


def test_a_device_that_cannot_be_written_is_refused(attach: Attach) -> None:
    device = attach(SIZE, "--read-only")
    with pytest.raises(RedoLogError, match=r"cannot be opened: (Permission denied|Operation not permitted|Read-only)"):
        Primary(device, geometry=UPSTREAM)


def test_a_device_that_loses_its_storage_refuses_and_goes_on_when_it_is_back(attach: Attach, tmp_path: Path) -> None:
    device = attach(SIZE)
    primary = Primary(device, geometry=UPSTREAM)
    before = primary.commit(network("n"))
    kept = (tmp_path / "backing0").read_bytes()
    os.truncate(tmp_path / "backing0", 512)
    losetup("--set-capacity", str(device))
    with pytest.raises(RedoLogError, match="cannot be written: "):
        primary.commit(write("n", name_label="lost"))
    with pytest.raises(RedoLogError, match="it has 512 bytes"):
        primary.log.begin(primary.store.generation, primary.store.term)
    (tmp_path / "backing0").write_bytes(kept)
    losetup("--set-capacity", str(device))
    primary.log.begin(primary.store.generation, primary.store.term)
    after = primary.commit(write("n", name_label="back"))
    assert before != after
    primary.log.close()
    assert recovered_rows(device, UPSTREAM) == after
