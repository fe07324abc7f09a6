from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pool.guest import build
from tests.vm.backends import Bench, Kind, QemuKind, SimulatorKind


@pytest.fixture(scope="session")
def guest_dir() -> Path:
    return build().kernel.parent


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Paths of sockets must be short; pytest's own folders may not be."""
    folder = Path(tempfile.mkdtemp(prefix="vm-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unplug_timeout() -> float:
    """Seconds that a guest may take to let go of a device; for tests to override."""
    return 5.0


@pytest.fixture(params=["simulator", pytest.param("qemu", marks=pytest.mark.qemu)])
def kind(request: pytest.FixtureRequest, short_folder: Path, unplug_timeout: float) -> Kind:
    if request.param == "simulator":
        return SimulatorKind(short_folder)
    return QemuKind(short_folder, request.getfixturevalue("guest_dir"), unplug_timeout=unplug_timeout)


@pytest.fixture
async def bench(kind: Kind) -> AsyncIterator[Bench]:
    made = Bench(kind)
    await made.backend.open([])
    yield made
    await made.end()
