"""Tests that hang fail, and those after them run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HANGING = """
import asyncio, time
import pytest

pytestmark = pytest.mark.timeout(1.5)

async def busy():
    while True:
        await asyncio.sleep(0)

async def test_waits():
    await asyncio.Event().wait()

async def test_waits_while_others_do_something():
    working = asyncio.create_task(busy())
    await asyncio.Event().wait()

async def test_blocks_the_loop():
    time.sleep(100)

def test_blocks():
    time.sleep(100)

@pytest.fixture
async def never_ready():
    await asyncio.Event().wait()

async def test_set_up(never_ready):
    pass

@pytest.fixture
async def never_over():
    yield
    working = asyncio.create_task(busy())
    await asyncio.Event().wait()

async def test_end(never_over):
    pass

async def test_waits_twice(never_over):
    await asyncio.Event().wait()

async def stays():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def test_that_will_not_be_cancelled():
    await stays()

async def test_whose_task_will_not_be_cancelled():
    working = asyncio.create_task(stays())
    await asyncio.sleep(0)

async def test_last():
    pass
"""


def test_what_hangs_is_ended_wherever_it_waits(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    settings = ["-p", "tests.support.time_limit", "-o", "asyncio_mode=auto", f"--rootdir={tmp_path}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *settings, str(tmp_path)],
        env=os.environ | {"TESTS_CANCEL_AGAIN_AFTER": "0.5", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=150,
    )
    summary = run.stdout.splitlines()[-1]
    assert "6 failed, 3 passed, 1 warning, 5 errors" in summary, run.stdout
    assert "more than 1.5 seconds" in run.stdout
    assert "await asyncio.Event().wait()" in run.stdout
